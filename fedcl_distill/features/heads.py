"""Linear classifiers on features, in closed form from sums, or trained on samples.

A head is small enough to be sent (:func:`~fedcl_distill.features.codec.encode_head`) and says of which backbone's
features it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.errors import DataError, DivergenceError
from fedcl_distill.features.sums import Centres, Factor, FeatureSums, Sketch, Squares, second_moments, within_scatter
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, NonNegative, Positive, Range, settings

Shrinkage = Literal["oas"] | Annotated[float, Range(ge=0, le=1)]
"""A share in [0, 1] of the identity, or "oas" for the rule that has no setting."""
_MIN_VARIANCE = 1e-12
_RELATIVE_FLOOR = 1e-9  # of the mean variance: keeps matrices of full rank where some features do not vary
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier of features: logits are ``weight`` · x + ``bias``, less ``precision`` · x² / 2 where there is one.

    Attributes:
        weight: float32 (C, d).
        bias: float32 (C,); minus infinity for a class that nobody has seen, which is then never predicted.
        class_names: one name a class.
        backbone: fingerprint of what made the features.
        precision: float32 (C, d): inverse variances of a Gaussian for each class; None for a linear head.
    """

    weight: Tensor
    bias: Tensor
    class_names: tuple[str, ...]
    backbone: str = ""
    precision: Tensor | None = None

    def logits(self, features: Tensor) -> Tensor:
        """float32 (n, C): unnormalised scores of float (n, d) features."""
        features = features.float()
        scores = features @ self.weight.T + self.bias
        return scores if self.precision is None else scores - features.square() @ self.precision.T / 2

    def predict(self, features: Tensor) -> Tensor:
        """int64 (n,): the class of each of (n, d) features."""
        return self.logits(features).argmax(dim=1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Fraction of (n, d) features with int64 (n,) labels classified correctly, in [0, 1]; NaN without samples."""
        return float((self.predict(features) == labels).double().mean())

    def as_linear(self) -> torch.nn.Linear:
        """A linear layer with these weights, to be fine-tuned behind the backbone.

        Raises:
            DataError: the head is no linear one, or does not know all classes.
        """
        if self.precision is not None:
            raise DataError("a Gaussian for each class is no linear layer")
        if not torch.isfinite(self.bias).all():
            raise DataError("the head does not know all classes")
        layer = torch.nn.Linear(self.weight.shape[1], len(self.weight))
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)
        return layer


@runtime_checkable
class SumHead(Protocol):
    """A head that follows from sums."""

    def fit(self, sums: FeatureSums) -> Head:
        """The head of these sums.

        Raises:
            DataError: the sums hold no sample, or keep too little for this head.
        """
        ...


HEADS: Registry[SumHead] = Registry("head", "fedcl_distill.heads", SumHead)
"""Heads in closed form, by name."""


@HEADS.register("ncm")
@settings
class NearestMean:
    """The class with the nearest mean, in the Euclidean distance or by angle (Legate et al. 2023, FedNCM).

    Attributes:
        metric: "euclidean", or "cosine", which looks at directions alone.
    """

    metric: Literal["euclidean", "cosine"] = "euclidean"

    def fit(self, sums: FeatureSums) -> Head:
        means = sums.means
        if self.metric == "cosine":
            means = F.normalize(means, dim=1)
            return _head(sums, means, torch.zeros(len(means), dtype=means.dtype))
        return _head(sums, means, -means.square().sum(1) / 2)


@HEADS.register("lda")
@settings
class LDA:
    """Linear discriminant analysis: Gaussians of one shared covariance, shrunk towards a multiple of the identity.

    Covariances of few samples are shrunk by the oracle approximating rule (Chen et al. 2010, eq. 23), which has no
    setting to choose. From means alone it is the nearest mean (all there is to know then).

    Attributes:
        shrinkage: a share in [0, 1] of the identity, or "oas" for the rule.
        priors: "uniform" takes all classes as equally frequent, "empirical" as frequent as they were.
    """

    shrinkage: Shrinkage = "oas"
    priors: Literal["uniform", "empirical"] = "uniform"

    def fit(self, sums: FeatureSums) -> Head:
        _require_samples(sums)
        if sums.second is None:
            return NearestMean().fit(sums)
        scatter, total = within_scatter(sums), sums.total
        if isinstance(scatter, Factor):
            weight = self._solve_factor(scatter, sums.means, total)
        else:
            weight = self._solve(scatter / total, sums.means, total)
        bias = -(weight * sums.means).sum(1) / 2
        if self.priors == "empirical":
            bias = bias + (sums.counts / total).clamp(min=1e-30).log()
        return _head(sums, weight, bias)

    def _solve(self, covariance: Tensor, means: Tensor, total: float) -> Tensor:
        """(C, d): ``means`` times the inverse of the shrunk covariance."""
        size = len(covariance)
        level = float(covariance.trace()) / size
        share = self._share(level, float(covariance.square().sum()), size, total)
        shrunk = (1 - share) * covariance
        shrunk.diagonal().add_(max(share * level, _RELATIVE_FLOOR * level, _MIN_VARIANCE))
        solved: Tensor = torch.linalg.solve(shrunk, means.T).T
        return solved

    def _solve_factor(self, scatter: Factor, means: Tensor, total: float) -> Tensor:
        """The same for rows of low rank and an isotropic rest, by the Woodbury identity: nothing of size d² is made."""
        rows, size = scatter.rows / math.sqrt(total), means.shape[1]
        rest = scatter.floor / total
        inner = rows @ rows.T
        trace = float(inner.trace()) + rest * size
        squares = float(inner.square().sum()) + 2 * rest * float(inner.trace()) + rest * rest * size
        level = trace / size
        share = self._share(level, squares, size, total)
        floor = max(share * level + (1 - share) * rest, _RELATIVE_FLOOR * level, _MIN_VARIANCE)
        if share >= 1 or not len(rows):
            return means / floor
        small = inner + torch.eye(len(rows), dtype=rows.dtype) * (floor / (1 - share))
        corrected: Tensor = means - torch.linalg.solve(small, rows @ means.T).T @ rows
        return corrected / floor

    def _share(self, level: float, squares: float, size: int, total: float) -> float:
        """What part of the covariance is replaced by ``level`` times the identity."""
        if self.shrinkage != "oas":
            return self.shrinkage
        alpha = squares / size**2
        denominator = (total + 1) * (alpha - level**2 / size)
        return 1.0 if denominator <= 0 else min(1.0, (alpha + level**2) / denominator)


@HEADS.register("ridge")
@settings
class Ridge:
    """Regression of one-hot labels on features: W = (G + λI)⁻¹ B (Fanì et al. 2024, Fed3R; He et al. 2025, AFL).

    Attributes:
        regularisation: λ, as a multiple of the mean of G's diagonal; a fixed one, for a value that is chosen on sums of
            few bits collapses.
        balance: weighs every class alike instead of by its number of samples: W's right side is Σ of class means. The
            matrix stays as it is.
    """

    regularisation: Positive = 1e-2
    balance: bool = False

    def fit(self, sums: FeatureSums) -> Head:
        _require_samples(sums)
        gram = second_moments(sums)
        weight = torch.ones_like(sums.counts) if self.balance else sums.counts
        targets = sums.means * weight[:, None]
        gram = gram.clone()
        gram.diagonal().add_(self.regularisation * float(gram.diagonal().mean()) + _TOLERANCE)
        solved = torch.linalg.solve(gram, targets.T).T
        return _head(sums, solved, torch.zeros(len(solved), dtype=solved.dtype))


@HEADS.register("naive-bayes")
@settings
class NaiveBayes:
    """A Gaussian with independent features for each class; from sums of squares, or means and pooled variances.

    Attributes:
        smoothing: added to every variance, as a multiple of the largest.
    """

    smoothing: NonNegative = 1e-3

    def fit(self, sums: FeatureSums) -> Head:
        _require_samples(sums)
        if isinstance(sums.second, Sketch):
            raise DataError("behind a projection, features are not independent: naive Bayes needs them as they are")
        variances = _variances(sums)
        variances = variances + self.smoothing * float(variances.max()) + _MIN_VARIANCE
        precision = 1 / variances
        weight = sums.means * precision
        bias = -(weight * sums.means).sum(1) / 2 + precision.log().sum(1) / 2
        return _head(sums, weight, bias, precision)


@settings
class Logistic:
    """Multinomial logistic regression on samples, by L-BFGS, or on draws from what sums know of classes (FedPFT).

    Attributes:
        weight_decay: of the weights: the loss is the mean cross entropy + ½ · this · ‖W‖².
        max_iterations: of L-BFGS.
        draws: samples of each class that are drawn where the head is fitted to sums.
        seed: names these draws.
    """

    weight_decay: NonNegative = 1e-4
    max_iterations: Count = 200
    draws: Count = 200
    seed: int = 0

    def fit(self, sums: FeatureSums) -> Head:
        """Fitted to draws from a Gaussian for each class (Beitollahi et al. 2024, FedPFT, with one component).

        Of cluster centres, it is fitted to these, each as often as it weighs.
        """
        _require_samples(sums)
        if isinstance(sums.second, Centres):
            centres = sums.second
            return self.fit_samples(
                centres.rows, centres.labels, sums.class_names, weights=centres.counts, backbone=sums.backbone
            )
        deviations = _variances(sums).clamp(min=0).sqrt()
        features, labels = [], []
        for label in torch.nonzero(sums.counts).flatten().tolist():
            noise = torch.randn(self.draws, sums.dimensions, generator=generator_for(self.seed, "draws", label))
            features.append(sums.means[label].float() + noise * deviations[label].float())
            labels.append(torch.full((self.draws,), label))
        drawn, classes = torch.cat(features), torch.cat(labels)
        head = self.fit_samples(drawn, classes, sums.class_names, backbone=sums.backbone)
        return head if not isinstance(sums.second, Sketch) else replace(head, weight=_lifted(sums, head.weight))

    def fit_samples(
        self,
        features: Tensor,
        labels: Tensor,
        class_names: tuple[str, ...],
        *,
        weights: Tensor | None = None,
        backbone: str = "",
    ) -> Head:
        """Fitted to float (n, d) features.

        Args:
            features: float (n, d).
            labels: int64 (n,) classes, or float (n, C) probabilities.
            class_names: one name a class.
            weights: float (n,), positive; None counts all alike.
            backbone: fingerprint of what made the features.

        Raises:
            DataError: there is no sample.
            DivergenceError: the loss stopped being finite.
        """
        if len(features) == 0:
            raise DataError("a head needs samples")
        classes = len(class_names)
        targets = (F.one_hot(labels, classes) if labels.ndim == 1 else labels).double()
        seen = targets.sum(0) > 0
        inputs = features.double()
        share = torch.ones(len(inputs), dtype=torch.float64) if weights is None else weights.double()
        share = share / share.sum()
        weight = torch.zeros(classes, inputs.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias], max_iter=self.max_iterations, tolerance_grad=_TOLERANCE, line_search_fn="strong_wolfe"
        )

        def loss_of() -> Tensor:
            optimiser.zero_grad()
            scores = (inputs @ weight.T + bias).masked_fill(~seen, -torch.inf)
            logs = torch.where(targets > 0, F.log_softmax(scores, dim=1), torch.zeros_like(scores))
            loss = -(share[:, None] * targets * logs).sum() + self.weight_decay / 2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        final = optimiser.step(loss_of).item()  # type: ignore[arg-type, no-untyped-call]
        if not math.isfinite(final):
            raise DivergenceError(f"logistic regression diverged: loss {final}")
        bias_out = bias.detach().masked_fill(~seen, -torch.inf)
        return Head(weight.detach().float(), bias_out.float(), tuple(class_names), backbone)


HEADS.register("logistic")(Logistic)


def _variances(sums: FeatureSums) -> Tensor:
    """float64 (C, d): variances of each class, or pooled ones where sums know no others."""
    if isinstance(sums.second, Squares):
        counts = sums.counts.clamp(min=1)[:, None]
        return (sums.second.squares / counts - sums.means.square()).clamp(min=0)
    scatter = within_scatter(sums)
    if isinstance(scatter, Factor):
        diagonal = scatter.rows.square().sum(0) + scatter.floor
    else:
        diagonal = scatter.diagonal().clamp(min=0)
    return (diagonal / sums.total).expand(len(sums.counts), -1)


def _head(sums: FeatureSums, weight: Tensor, bias: Tensor, precision: Tensor | None = None) -> Head:
    bias = bias.masked_fill(sums.counts == 0, -torch.inf)
    rounded = None if precision is None else precision.float()
    return Head(_lifted(sums, weight), bias.float(), sums.class_names, sums.backbone, rounded)


def _lifted(sums: FeatureSums, weight: Tensor) -> Tensor:
    """float32 (C, d): ``weight`` as it applies to features that no projection was applied to."""
    return (sums.second.lift(weight.double()) if isinstance(sums.second, Sketch) else weight).float()


def _require_samples(sums: FeatureSums) -> None:
    if sums.total <= 0:
        raise DataError("feature sums hold no sample")
