"""Distribution matching, DM (Zhao and Bilen 2023): class means of embeddings must agree; in FedDM, of scores too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.chunks import chunk_size, chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Objective, View
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class ClassMeans:
    """float32 (classes, embedding) means and bool (classes,): which classes have real samples."""

    means: Tensor
    present: Tensor


@dataclass(frozen=True)
class DistributionMatching(Objective[ClassMeans]):
    """Σ over classes of ‖mean embedding of the real − mean embedding of the synthetic samples‖² (equation 6).

    The sum runs over classes that have samples on both sides. FedDM (Xiong et al. 2023) adds the same of class scores
    (logits).

    Attributes:
        real_per_class: real samples a class in each view.
        scores_weight: of the addend of class scores: 0 is DM, 1 is FedDM.

    Raises:
        SettingsError: on construction, if the weight is negative or not finite.
    """

    real_per_class: int = 256
    scores_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.scores_weight < math.inf:
            raise SettingsError(f"scores_weight must be finite and not negative, got {self.scores_weight}")

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "distribution matching",
            "real_per_class": self.real_per_class,
            "scores_weight": self.scores_weight,
        }

    @torch.no_grad()
    def target(self, view: View, real: RealSide) -> ClassMeans:
        inputs, labels = real.draw(self.real_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        embeddings = torch.cat([self._seen(view, part) for (part,) in chunked(inputs)])
        return class_means(embeddings, labels, real.data.num_classes)

    def losses(self, view: View, target: ClassMeans, synthetic: SyntheticSide) -> Iterator[Tensor]:
        def features(inputs: Tensor, classes: Tensor) -> Tensor:
            return self._seen(view, view.augment(inputs, classes))

        yield from distances_of_means(features, target, synthetic.inputs, synthetic.classes)

    def _seen(self, view: View, inputs: Tensor) -> Tensor:
        """float32 (n, …): embeddings and, beside them, scores scaled so that squares carry their weight."""
        embeddings = view.network.embed(inputs)
        if self.scores_weight == 0:
            return embeddings
        return torch.cat([embeddings, math.sqrt(self.scores_weight) * view.network.classifier(embeddings)], dim=1)


def distances_of_means(
    features: Callable[[Tensor, Tensor], Tensor], target: ClassMeans, inputs: Tensor, classes: Tensor
) -> Iterator[Tensor]:
    """Scalars that add up to Σ ‖target mean − mean of ``features(inputs, classes)``‖² over classes on both sides."""
    for members in groups_of_classes(classes, len(target.means), chunk_size(inputs)):
        found = class_means(features(inputs[members], classes[members]), classes[members], len(target.means))
        both = target.present & found.present
        yield (target.means[both] - found.means[both]).square().sum()


def groups_of_classes(labels: Tensor, classes: int, size: int) -> Iterator[Tensor]:
    """Positions of whole classes, about ``size`` samples at a time: the loss is a sum over classes."""
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels, minlength=classes).tolist()
    start = end = 0
    for label, count in enumerate(counts):
        if end > start and end + count - start > size:
            yield order[start:end]
            start = end
        end += count
        if label == classes - 1 and end > start:
            yield order[start:end]


def class_means(embeddings: Tensor, labels: Tensor, classes: int) -> ClassMeans:
    """Mean of ``embeddings`` (n, embedding) over the samples of each class, differentiable; 0 for absent classes."""
    counts = torch.bincount(labels, minlength=classes)
    sums = embeddings.new_zeros(classes, embeddings.shape[1]).index_add(0, labels, embeddings)
    return ClassMeans(sums / counts.clamp(min=1)[:, None], counts > 0)
