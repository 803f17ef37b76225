"""How far predictions of a kernel ridge regression are from the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.objectives.base import Learned


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

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


class _LearnsNothing:
    def learned(self) -> dict[str, Learned]:
        return {}


@dataclass(frozen=True)
class SquaredError(_LearnsNothing):
    """½ mean over samples and classes of the squared error (Nguyen et al. 2021)."""

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        return 0.5 * (predictions - centred_one_hot(classes, predictions)).square().mean()

    def settings(self) -> dict[str, Any]:
        return {"loss": "squared error"}


@dataclass(frozen=True)
class SquaredErrorWithMargin(_LearnsNothing):
    """½ squared error, summed over classes, minus the labels' margin up to 1/classes (Zhou et al. 2022, authors' code).

    The margin is how far the largest entry of a synthetic sample's label lies above the second largest: learned labels
    shall keep naming a class.
    """

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        error = 0.5 * (predictions - centred_one_hot(classes, predictions)).square().sum(dim=1).mean()
        return error + margin_loss(probabilities)

    def settings(self) -> dict[str, Any]:
        return {"loss": "squared error with label margin"}


@dataclass(frozen=True)
class PlattScaling:
    """Cross entropy of exp(k) · predictions, with k learned (Loo et al. 2022; Platt 1999).

    Attributes:
        scale_learning_rate: of k, which starts at 0; the authors' code takes ten times the samples' rate.
    """

    scale_learning_rate: float = 0.01

    def __call__(
        self, predictions: Tensor, classes: Tensor, probabilities: Tensor, learned: Mapping[str, Tensor]
    ) -> Tensor:
        return F.cross_entropy(learned["log_scale"].exp() * predictions, classes)

    def learned(self) -> dict[str, Learned]:
        return {"log_scale": Learned(torch.zeros(()), self.scale_learning_rate)}

    def settings(self) -> dict[str, Any]:
        return {"loss": "cross entropy with Platt scaling", "scale_learning_rate": self.scale_learning_rate}


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
