"""Kernel ridge regression from synthetic to real samples: KIP, FRePo and RFAD, by kernel and loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.kernel_ridge.kernels import Kernel, NetworkFeatures, gram
from fedcl_distill.objectives.kernel_ridge.losses import RegressionLoss, SquaredError
from fedcl_distill.objectives.kernel_ridge.ridge import ridge_coefficients
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class RepresentedBatch:
    """float (n, size) real samples as the kernel sees them, and int64 (n,) which of ``num_classes`` they belong to."""

    represented: Tensor
    classes: Tensor
    num_classes: int


@dataclass(frozen=True)
class KernelRidgeRegression(Objective[RepresentedBatch]):
    """Loss on a real batch of K_ts (K_ss + λ·tr(K_ss)/n·I)⁻¹ y: of a ridge regression fitted to the synthetic samples.

    Here y are the synthetic labels as probabilities minus 1/classes (Nguyen et al. 2021; Zhou et al. 2022; Loo et
    al. 2022). No gradient passes the real side, and no second derivative is needed.

    Attributes:
        kernel: K.
        loss: of the predictions.
        regularisation: λ, relative to the mean of the diagonal of K_ss.
        real_per_batch: real samples in each view, of all classes together.
    """

    reads_labels: ClassVar[bool] = True
    kernel: Kernel = field(default_factory=NetworkFeatures)
    loss: RegressionLoss = field(default_factory=SquaredError)
    regularisation: float = 1e-6
    real_per_batch: int = 1024

    def __post_init__(self) -> None:
        if self.regularisation <= 0 or self.real_per_batch < 1:
            raise SettingsError("kernel ridge regression needs regularisation > 0 and real_per_batch ≥ 1")

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        return self.kernel.needs_network

    def learned(self) -> dict[str, Learned]:
        return self.loss.learned()

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "kernel ridge regression",
            "regularisation": self.regularisation,
            "real_per_batch": self.real_per_batch,
            **self.kernel.settings(),
            **self.loss.settings(),
        }

    @torch.no_grad()
    def target(self, view: View, real: RealSide) -> RepresentedBatch:
        inputs, classes = real.batch(self.real_per_batch, view.seed)
        represented = self.kernel.represent(view.network, view.augment(inputs, classes))
        return RepresentedBatch(represented, classes, real.data.num_classes)

    def losses(self, view: View, target: RepresentedBatch, synthetic: SyntheticSide) -> Iterator[Tensor]:
        parts = chunked(synthetic.inputs, synthetic.classes)
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

    def _represent(self, view: View, inputs: Tensor, classes: Tensor) -> Tensor:
        return self.kernel.represent(view.network, view.augment(inputs, classes))

    def _value(self, represented: Tensor, target: RepresentedBatch, synthetic: SyntheticSide) -> Tensor:
        probabilities = synthetic.probabilities(target.num_classes)
        coefficients = ridge_coefficients(
            gram(self.kernel, represented), probabilities - 1 / target.num_classes, self.regularisation
        )
        predictions = self.kernel.between(target.represented, represented) @ coefficients
        return self.loss(predictions, target.classes, probabilities, synthetic.learned)
