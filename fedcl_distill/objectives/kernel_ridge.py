"""Kernel ridge regression: performance matching in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import DivergenceError
from fedcl_distill.networks import Network
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.objectives.base import Learned, MatchContext, Objective, register_objective
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Count, Natural, NonNegative, Positive, settings


@runtime_checkable
class Kernel(Protocol):
    """Split in two, so that the representation of the real side is computed once and serves several steps."""

    @property
    def needs_network(self) -> bool:
        """It looks through a network; else it has a closed form."""
        ...

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        """float (n, size): all that the kernel must know of ``inputs`` (n, …), differentiable."""
        ...

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """float64 (n, m) kernel of represented samples, differentiable; its precision is that of the samples."""
        ...


KERNELS: Registry[Kernel] = Registry("kernel", "fedcl_distill.kernels", Kernel)


def gram(kernel: Kernel, represented: Tensor) -> Tensor:
    """float64 (n, n), computed in double precision, which solving with it needs."""
    represented = represented.double()
    return kernel.between(represented, represented)


@KERNELS.register("network-features")
@settings
class NetworkFeatures:
    """``scale`` · ⟨f(x), f(y)⟩ / embedding size + ``bias``, for embeddings f of the view's network.

    With a network trained for a while it is the kernel of FRePo (Zhou et al. 2022); with many random ones
    it estimates their Gaussian-process kernel, where ``scale`` and ``bias`` are the variances of the last layer
    (Loo et al. 2022).
    """

    scale: Positive = 1.0
    bias: NonNegative = 0.0

    @property
    def needs_network(self) -> bool:
        return True

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        return torch.cat([network.embed(part) for (part,) in micro_batches(inputs)])

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T).double() * (self.scale / left.shape[1]) + self.bias


@KERNELS.register("fully-connected-ntk")
@settings
class FullyConnectedNTK:
    """Neural tangent kernel of an infinitely wide ReLU network (Jacot et al. 2018; Lee et al. 2019).

    In the parametrisation in which a layer maps x to σ_w W x / √(fan in) + σ_b b, with standard Gaussian W and b.

    Attributes:
        depth: hidden layers, each followed by ReLU; 0 is linear.
        weight_std, bias_std: σ_w and σ_b; the defaults are those of KIP (Nguyen et al. 2021).
    """

    depth: Natural = 2
    weight_std: Positive = math.sqrt(2)
    bias_std: NonNegative = 0.1

    @property
    def needs_network(self) -> bool:
        return False

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).double()

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        covariance = self._dense(left @ right.T / left.shape[1])
        of_left, of_right = (self._dense(side.square().mean(dim=1)) for side in (left, right))
        tangent = covariance
        for _ in range(self.depth):
            covariance, derivative = relu_covariance(covariance, of_left, of_right)
            covariance = self._dense(covariance)
            tangent = covariance + self.weight_std**2 * tangent * derivative
            # ReLU halves a variance, for it keeps one half of a symmetric distribution.
            of_left, of_right = self._dense(of_left / 2), self._dense(of_right / 2)
        return tangent

    def _dense(self, covariance: Tensor) -> Tensor:
        """Covariance after a layer's linear map."""
        return self.weight_std**2 * covariance + self.bias_std**2


def relu_covariance(covariance: Tensor, of_left: Tensor, of_right: Tensor) -> tuple[Tensor, Tensor]:
    """E[ReLU(u) ReLU(v)] and E[ReLU′(u) ReLU′(v)] for centred Gaussian u, v (Cho and Saul 2009).

    Args:
        covariance: float64 (n, m) of u and v.
        of_left, of_right: float64 (n,) and (m,) variances of u and of v.
    """
    product = of_left[:, None] * of_right[None, :]
    gap = product - covariance.square()
    # Equal samples: the angle is 0, where √ and arccos have no finite slope. What they are multiplied with vanishes,
    # so that the gradient without them is the exact one.
    apart = gap > 1e-12 * product
    sine = torch.where(apart, gap, torch.ones_like(gap)).sqrt().where(apart, torch.zeros_like(gap))
    rest = math.pi - torch.atan2(sine, covariance)
    return (sine + rest * covariance) / (2 * math.pi), rest / (2 * math.pi)


@runtime_checkable
class RegressionLoss(Protocol):
    """Compares predictions with classes."""

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss, a scalar, differentiable.

        Args:
            predictions: float64 (n, classes), of one-hot rows minus 1/classes.
            classes: int64 (n,): the truth.
            probabilities: float (m, classes): labels of the synthetic samples.
            learned: see :meth:`learned`.
        """
        ...

    def learned(self) -> dict[str, Learned]:
        """What it learns beside the samples, by name."""
        ...


REGRESSION_LOSSES: Registry[RegressionLoss] = Registry(
    "regression loss", "fedcl_distill.regression_losses", RegressionLoss
)


class _LearnsNothing:
    def learned(self) -> dict[str, Learned]:
        return {}


@REGRESSION_LOSSES.register("squared-error")
@settings
class SquaredError(_LearnsNothing):
    """½ mean over samples and classes of the squared error (Nguyen et al. 2021)."""

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        return 0.5 * (predictions - centred_one_hot(classes, predictions)).square().mean()


@REGRESSION_LOSSES.register("squared-error-with-margin")
@settings
class SquaredErrorWithMargin(_LearnsNothing):
    """½ squared error, summed over classes, minus the labels' margin up to 1/classes (Zhou et al. 2022, authors' code).

    The margin is how far the largest entry of a synthetic sample's label lies above the second largest: learned labels
    must keep naming a class.
    """

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        error = 0.5 * (predictions - centred_one_hot(classes, predictions)).square().sum(dim=1).mean()
        return error + margin_loss(probabilities)


@REGRESSION_LOSSES.register("platt-scaling")
@settings
class PlattScaling:
    """Cross entropy of exp(k) · predictions, with k learned (Loo et al. 2022; Platt 1999).

    Attributes:
        scale_learning_rate: of k, which starts at 0; the authors' code takes ten times the samples' rate.
    """

    scale_learning_rate: Positive = 0.01

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        return F.cross_entropy(learned["log_scale"].exp() * predictions, classes)

    def learned(self) -> dict[str, Learned]:
        return {"log_scale": Learned(torch.zeros(()), self.scale_learning_rate)}


def centred_one_hot(classes: Tensor, like: Tensor) -> Tensor:
    """(n, classes) in shape and dtype of ``like``: 1 at the class, minus 1/classes everywhere."""
    count = like.shape[1]
    return F.one_hot(classes, count).to(like.dtype) - 1 / count


def margin_loss(probabilities: Tensor) -> Tensor:
    """Minus the mean of min(largest − second largest entry, 1/classes) over rows; 0 where there is one class."""
    count = probabilities.shape[1]
    if count < 2:
        return probabilities.new_zeros(())
    largest = probabilities.topk(2, dim=1).values
    return -(largest[:, 0] - largest[:, 1]).clamp(max=1 / count).mean()


_GROWTH, _TRIES = 10.0, 6


def ridge_coefficients(gram: Tensor, labels: Tensor, regularisation: float) -> Tensor:
    """float64 (n, classes): (K + λ·tr(K)/n·I)⁻¹ y, differentiable; multiplied with a kernel they predict.

    Where rounding leaves the matrix without a Cholesky factor, λ grows tenfold, up to a million times.

    Args:
        gram: float64 (n, n), symmetric: K.
        labels: (n, classes): y.
        regularisation: λ, relative to the mean of the diagonal.

    Raises:
        DivergenceError: K is not finite, or no λ tried makes it positive definite.
    """
    diagonal = torch.diagonal(gram).mean()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    if bool(torch.isfinite(gram).all()):
        for attempt in range(_TRIES + 1):
            ridge = regularisation * _GROWTH**attempt * diagonal
            factor, failed = torch.linalg.cholesky_ex(gram + ridge * identity)
            if not failed:
                return torch.cholesky_solve(labels.to(gram.dtype), factor)
    raise DivergenceError(
        f"the kernel of the {len(gram)} synthetic samples is not positive definite; try a smaller learning rate or a "
        "larger regularisation"
    )


@dataclass(frozen=True)
class RepresentedBatch:
    """float (n, size) real samples as the kernel sees them, and int64 (n,) which of ``num_classes`` they belong to."""

    represented: Tensor
    classes: Tensor
    num_classes: int


@register_objective("kernel-ridge-regression")
@settings
class KernelRidgeRegression(Objective[RepresentedBatch]):
    """Loss on a real batch of K_ts (K_ss + λ·tr(K_ss)/n·I)⁻¹ y: of a ridge regression fitted to the synthetic samples.

    Here y are the synthetic labels as probabilities minus 1/classes (Nguyen et al. 2021; Zhou et al. 2022; Loo et
    al. 2022). No gradient passes the real side, and no second derivative is needed.

    Attributes:
        kernel: K.
        loss: of the predictions.
        regularisation: λ, relative to the mean of the diagonal of K_ss.
        real_batch_size: real samples in each view, of all classes together.
    """

    reads_labels: ClassVar[bool] = True
    kernel: Annotated[Kernel, KERNELS] = field(default_factory=NetworkFeatures)
    loss: Annotated[RegressionLoss, REGRESSION_LOSSES] = field(default_factory=SquaredError)
    regularisation: Positive = 1e-6
    real_batch_size: Count = 1024

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        return self.kernel.needs_network

    def learned(self) -> dict[str, Learned]:
        return self.loss.learned()

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> RepresentedBatch:
        inputs, classes = real.batch(self.real_batch_size, view.seed)
        represented = self.kernel.represent(view.network, view.augment(inputs, classes))
        return RepresentedBatch(represented, classes, real.data.num_classes)

    def losses(self, view: MatchContext, target: RepresentedBatch, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        parts = micro_batches(synthetic.inputs, synthetic.classes)
        if len(parts) == 1 or not self.needs_network:
            yield self._value(self._represent(view, synthetic.inputs, synthetic.classes), target, synthetic)
            return
        # Every sample acts on every prediction: first the gradient at the representations, then from there to the
        # samples, so that the activations of one chunk alone are held.
        with torch.no_grad():
            leaf = torch.cat([self._represent(view, *part) for part in parts])
        yield self._value(leaf.requires_grad_(), target, synthetic)
        if leaf.grad is None:
            raise RuntimeError("each loss must be differentiated before the next is asked for")
        for (inputs, classes), gradient in zip(parts, torch.split(leaf.grad, len(parts[0][0])), strict=True):
            addend = (self._represent(view, inputs, classes) * gradient).sum()
            yield addend - addend.detach()

    def _represent(self, view: MatchContext, inputs: Tensor, classes: Tensor) -> Tensor:
        return self.kernel.represent(view.network, view.augment(inputs, classes))

    def _value(self, represented: Tensor, target: RepresentedBatch, synthetic: SyntheticBatch) -> Tensor:
        probabilities = synthetic.probabilities(target.num_classes)
        coefficients = ridge_coefficients(
            gram(self.kernel, represented), probabilities - 1 / target.num_classes, self.regularisation
        )
        predictions = self.kernel.between(target.represented, represented) @ coefficients
        return self.loss(predictions, target.classes, probabilities, synthetic.learned)
