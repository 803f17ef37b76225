"""CAFE (Wang et al. 2022): class means must agree at every stage, and tell the classes of real samples apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunk_size, chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Objective, View
from fedcl_distill.objectives.distribution.class_means import ClassMeans, class_means, groups_of_classes
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class LayerTarget:
    """The real side of a view.

    Attributes:
        stages: class means of each stage's flattened output, shallow first; the last are those of the embedding.
        embeddings: float32 (n, embedding) of all real samples of the batch.
        labels: int64 (n,), theirs.
    """

    stages: list[ClassMeans]
    embeddings: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LayerMeans(Objective[LayerTarget]):
    """Squared distance of class means at every stage, and a discriminative term (Wang et al. 2022).

    The discriminative term is the cross entropy, summed over the real samples, of scores that are the inner products
    of a real embedding with the class centres of the synthetic embeddings. Both run over classes that have samples on
    both sides.

    The authors' code weighs the two shallow activations of ConvNet-3 by 0.1 and the two deep ones by 1. Their deep two
    are the last block before and after its pooling, their embedding once more with weight 1; here a stage ends after
    its pooling, and the deep half of the stages (rounded down, at least the last) has the deep weight.

    Attributes:
        real_per_class: real samples a class in each view.
        shallow_weight, deep_weight: of the squared distances.
        discriminative_weight: of the cross entropy.

    Raises:
        SettingsError: on construction, if a weight is negative or there is no real sample.
    """

    real_per_class: int = 256
    shallow_weight: float = 0.1
    deep_weight: float = 1.0
    discriminative_weight: float = 0.01

    def __post_init__(self) -> None:
        if self.real_per_class < 1 or min(self.shallow_weight, self.deep_weight, self.discriminative_weight) < 0:
            raise SettingsError("layer means need a real sample a class and weights that are not negative")

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "layer means",
            "real_per_class": self.real_per_class,
            "shallow_weight": self.shallow_weight,
            "deep_weight": self.deep_weight,
            "discriminative_weight": self.discriminative_weight,
        }

    def weights(self, stages: int) -> list[float]:
        """Weight of each of so many stages, shallow first."""
        deep = max(1, stages // 2)
        return [self.shallow_weight] * (stages - deep) + [self.deep_weight] * deep

    @torch.no_grad()
    def target(self, view: View, real: RealSide) -> LayerTarget:
        inputs, labels = real.draw(self.real_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        parts = [[stage.flatten(1) for stage in view.network.stages(part)] for (part,) in chunked(inputs)]
        chunks = [labels_of for (_, labels_of) in chunked(inputs, labels)]
        means = [_means_of_parts(of_stage, chunks, real.data.num_classes) for of_stage in zip(*parts, strict=True)]
        return LayerTarget(means, torch.cat([stages[-1] for stages in parts]), labels)

    def losses(self, view: View, target: LayerTarget, synthetic: SyntheticSide) -> Iterator[Tensor]:
        inputs, classes = synthetic.inputs, synthetic.classes
        num_classes = len(target.stages[0].means)
        groups = list(groups_of_classes(classes, num_classes, chunk_size(inputs)))
        discriminate = Discriminative(target, classes, self.discriminative_weight)
        if len(groups) > 1:
            discriminate = discriminate.around(self._centres(view, synthetic, groups, num_classes))
        for number, members in enumerate(groups):
            augmented = view.augment(inputs[members], classes[members])
            outputs = [stage.flatten(1) for stage in view.network.stages(augmented)]
            means = [class_means(output, classes[members], num_classes) for output in outputs]
            loss = discriminate.addend(means[-1].means, first=number == 0)
            for weight, of_real, of_synthetic in zip(self.weights(len(means)), target.stages, means, strict=True):
                both = of_real.present & of_synthetic.present
                loss = loss + weight * (of_real.means[both] - of_synthetic.means[both]).square().sum()
            yield loss

    @torch.no_grad()
    def _centres(self, view: View, synthetic: SyntheticSide, groups: Sequence[Tensor], num_classes: int) -> Tensor:
        """float32 (classes, embedding): synthetic class centres; 0 for classes without samples."""
        inputs, classes = synthetic.inputs, synthetic.classes
        centres = [
            class_means(view.network.embed(view.augment(inputs[rows], classes[rows])), classes[rows], num_classes).means
            for rows in groups
        ]
        return torch.stack(centres).sum(dim=0)  # a class is in one group and 0 in all others


class Discriminative:
    """The discriminative term of all class centres at once, or cut into addends by groups of classes.

    To cut it, it is replaced by its tangent at the present centres, which has the same value and the same gradient
    there and is a sum over classes. So no more than one group's activations are ever held.
    """

    def __init__(self, target: LayerTarget, classes: Tensor, weight: float) -> None:
        present = target.stages[0].present.clone()
        present &= torch.bincount(classes, minlength=len(present)) > 0
        rows = present[target.labels]
        self._weight, self._present = weight, present
        self._embeddings, self._labels = target.embeddings[rows], (present.cumsum(0) - 1)[target.labels[rows]]
        self._slope: Tensor | None = None
        self._offset = 0.0

    def value(self, centres: Tensor) -> Tensor:
        """Scalar, given float32 (classes, embedding) centres of all classes."""
        scores = self._embeddings @ centres[self._present].T
        return self._weight * F.cross_entropy(scores, self._labels, reduction="sum")

    def around(self, centres: Tensor) -> Discriminative:
        """The same term as its tangent at ``centres``."""
        with torch.enable_grad():
            at = centres.detach().requires_grad_()
            value = self.value(at)
            (self._slope,) = torch.autograd.grad(value, at)
        self._offset = value.item() - float((self._slope * centres).sum())
        return self

    def addend(self, centres: Tensor, *, first: bool) -> Tensor:
        """What a group's ``centres``, 0 for all other classes, add; the first group's addend holds the constant."""
        if self._slope is None:
            return self.value(centres)
        return (self._slope * centres).sum() + (self._offset if first else 0.0)


def _means_of_parts(parts: Sequence[Tensor], labels: Sequence[Tensor], classes: int) -> ClassMeans:
    """Class means of embeddings that come in parts, (m, size) each, without putting them together."""
    counts = torch.bincount(torch.cat(list(labels)), minlength=classes)
    sums = parts[0].new_zeros(classes, parts[0].shape[1])
    for part, of_part in zip(parts, labels, strict=True):
        sums.index_add_(0, of_part, part)
    return ClassMeans(sums / counts.clamp(min=1)[:, None], counts > 0)
