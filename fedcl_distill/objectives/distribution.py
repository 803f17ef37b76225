"""Distribution matching: class means, means of every layer, characteristic functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import micro_batch_size, micro_batches
from fedcl_distill.objectives.base import MatchContext, Objective, register_objective
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, NonNegative, Positive, settings


@dataclass(frozen=True)
class ClassMeans:
    """float32 (classes, embedding) means and bool (classes,): which classes have real samples."""

    means: Tensor
    present: Tensor


@register_objective("distribution-matching")
@settings
class DistributionMatching(Objective[ClassMeans]):
    """Σ over classes of ‖mean embedding of the real − mean embedding of the synthetic samples‖² (equation 6).

    The sum runs over classes that have samples on both sides. FedDM (Xiong et al. 2023) adds the same of class scores
    (logits).

    Attributes:
        real_batch_per_class: real samples a class in each view.
        logits_weight: of the addend of class scores: 0 is DM, 1 is FedDM.

    Raises:
        SettingsError: on construction, if the weight is negative or not finite.
    """

    real_batch_per_class: Count = 256
    logits_weight: NonNegative = 0.0

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> ClassMeans:
        inputs, labels = real.draw(self.real_batch_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        embeddings = torch.cat([self._seen(view, part) for (part,) in micro_batches(inputs)])
        return class_means(embeddings, labels, real.data.num_classes)

    def losses(self, view: MatchContext, target: ClassMeans, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        def features(inputs: Tensor, classes: Tensor) -> Tensor:
            return self._seen(view, view.augment(inputs, classes))

        yield from distances_of_means(features, target, synthetic.inputs, synthetic.classes)

    def _seen(self, view: MatchContext, inputs: Tensor) -> Tensor:
        """float32 (n, …): embeddings and, beside them, scores scaled so that squares carry their weight."""
        if self.logits_weight == 0:
            return view.network.embed(inputs)
        embeddings, logits = view.network.embed_and_classify(inputs)
        return torch.cat([embeddings, math.sqrt(self.logits_weight) * logits], dim=1)


def distances_of_means(
    features: Callable[[Tensor, Tensor], Tensor], target: ClassMeans, inputs: Tensor, classes: Tensor
) -> Iterator[Tensor]:
    """Scalars that add up to Σ ‖target mean − mean of ``features(inputs, classes)``‖² over classes on both sides."""
    for members in groups_of_classes(classes, len(target.means), micro_batch_size(inputs)):
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


@register_objective("layer-means")
@settings
class LayerMeans(Objective[LayerTarget]):
    """Squared distance of class means at every stage, and a discriminative term (Wang et al. 2022).

    The discriminative term is the cross entropy, summed over the real samples, of scores that are the inner products
    of a real embedding with the class centres of the synthetic embeddings. Both run over classes that have samples on
    both sides.

    The authors' code weighs the two shallow activations of ConvNet-3 by 0.1 and the two deep ones by 1. Their deep two
    are the last block before and after its pooling, their embedding once more with weight 1; here a stage ends after
    its pooling, and the deep half of the stages (rounded down, at least the last) has the deep weight.

    Attributes:
        real_batch_per_class: real samples a class in each view.
        shallow_weight, deep_weight: of the squared distances.
        discriminative_weight: of the cross entropy.

    Raises:
        SettingsError: on construction, if a weight is negative or there is no real sample.
    """

    real_batch_per_class: Count = 256
    shallow_weight: NonNegative = 0.1
    deep_weight: NonNegative = 1.0
    discriminative_weight: NonNegative = 0.01

    def weights(self, stages: int) -> list[float]:
        """Weight of each of so many stages, shallow first."""
        deep = max(1, stages // 2)
        return [self.shallow_weight] * (stages - deep) + [self.deep_weight] * deep

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> LayerTarget:
        inputs, labels = real.draw(self.real_batch_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        parts = [[stage.flatten(1) for stage in view.network.stages(part)] for (part,) in micro_batches(inputs)]
        chunks = [labels_of for (_, labels_of) in micro_batches(inputs, labels)]
        means = [_means_of_parts(of_stage, chunks, real.data.num_classes) for of_stage in zip(*parts, strict=True)]
        return LayerTarget(means, torch.cat([stages[-1] for stages in parts]), labels)

    def losses(self, view: MatchContext, target: LayerTarget, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        inputs, classes = synthetic.inputs, synthetic.classes
        num_classes = len(target.stages[0].means)
        groups = list(groups_of_classes(classes, num_classes, micro_batch_size(inputs)))
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
    def _centres(
        self, view: MatchContext, synthetic: SyntheticBatch, groups: Sequence[Tensor], num_classes: int
    ) -> Tensor:
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


_MIN_PHASE_TERM = 1e-12  # below it rounding rules, and the square root has no slope


@dataclass(frozen=True)
class CharacteristicMeans:
    """Empirical characteristic functions E[exp(i⟨t, x⟩)] of each class at sampled frequencies t.

    Both are class means, bounded by 1: times the class counts they are sums over samples.

    Attributes:
        cosines, sines: float32 (classes, frequencies), the real and the imaginary part; 0 for absent classes.
        present: bool (classes,): which classes have samples.
    """

    cosines: Tensor
    sines: Tensor
    present: Tensor


@dataclass(frozen=True)
class CharacteristicTarget:
    """float32 (frequencies, embedding) at which the real side was looked at, and what was seen."""

    frequencies: Tensor
    real: CharacteristicMeans


@register_objective("characteristic-function")
@settings
class CharacteristicFunction(Objective[CharacteristicTarget]):
    """Distance of the class-wise characteristic functions of embeddings, summed over classes (Wang et al. 2025).

    With φ the characteristic function of the real and ψ that of the synthetic embeddings of a class, it is the mean
    over frequencies of √(α(|φ| − |ψ|)² + 2β(|φ||ψ| − Re φψ*)), an amplitude and a phase term; with α = β = ½ that is
    |φ − ψ|/√2. As in the authors' code, embeddings are scaled to length 1, frequencies are standard normal and drawn
    anew for each view, and the sum is multiplied by 300. The paper's network that learns where to draw frequencies is
    left out; the authors' settings for CIFAR leave it out too.

    Attributes:
        frequencies: how many.
        amplitude_weight, phase_weight: α and β.
        scale: what the sum is multiplied by; it matters beside other terms and for SGD.
        real_batch_per_class: real samples a class in each view.

    Raises:
        SettingsError: on construction, if a number is not positive, or a weight negative or both 0.
    """

    frequencies: Count = 4096
    amplitude_weight: NonNegative = 0.5
    phase_weight: NonNegative = 0.5
    scale: Positive = 300.0
    real_batch_per_class: Count = 1024

    def __post_init__(self) -> None:
        if self.amplitude_weight + self.phase_weight == 0:
            raise SettingsError("CharacteristicFunction: amplitude_weight and phase_weight cannot both be 0")

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> CharacteristicTarget:
        inputs, labels = real.draw(self.real_batch_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        size = view.network.embedding_size
        generator = generator_for(view.seed, "frequencies")
        frequencies = torch.randn(self.frequencies, size, generator=generator).to(inputs)
        classes = real.data.num_classes
        cosines = inputs.new_zeros(classes, self.frequencies)
        sines = torch.zeros_like(cosines)
        for part, of_part in micro_batches(inputs, labels):
            phases = _embed(view, part) @ frequencies.T
            cosines.index_add_(0, of_part, phases.cos())
            sines.index_add_(0, of_part, phases.sin_())
        counts = torch.bincount(labels, minlength=classes)
        divisor = counts.clamp(min=1)[:, None]
        return CharacteristicTarget(frequencies, CharacteristicMeans(cosines / divisor, sines / divisor, counts > 0))

    def losses(self, view: MatchContext, target: CharacteristicTarget, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        inputs, classes = synthetic.inputs, synthetic.classes
        for members in groups_of_classes(classes, len(target.real.present), micro_batch_size(inputs)):
            embeddings = _embed(view, view.augment(inputs[members], classes[members]))
            seen = characteristic_means(embeddings, classes[members], target.frequencies, len(target.real.present))
            both = target.real.present & seen.present
            yield self.scale * self.distances(_only(target.real, both), _only(seen, both)).sum()

    def distances(self, real: CharacteristicMeans, synthetic: CharacteristicMeans) -> Tensor:
        """float32 (classes,): mean over frequencies, without ``scale``; differentiable in the synthetic side."""
        of_real = _modulus(real)
        of_synthetic = _modulus(synthetic)
        amplitude = (of_real - of_synthetic).square()
        aligned = real.cosines * synthetic.cosines + real.sines * synthetic.sines
        phase = (2 * (of_real * of_synthetic - aligned)).clamp(min=_MIN_PHASE_TERM)
        return (self.amplitude_weight * amplitude + self.phase_weight * phase + _MIN_PHASE_TERM).sqrt().mean(dim=1)


def characteristic_means(embeddings: Tensor, labels: Tensor, frequencies: Tensor, classes: int) -> CharacteristicMeans:
    """Characteristic functions of ``embeddings`` (n, d) at ``frequencies`` (f, d), class by class; differentiable."""
    phases = embeddings @ frequencies.T
    counts = torch.bincount(labels, minlength=classes)
    divisor = counts.clamp(min=1)[:, None]
    zeros = phases.new_zeros(classes, phases.shape[1])
    cosines = zeros.index_add(0, labels, phases.cos()) / divisor
    sines = zeros.index_add(0, labels, phases.sin()) / divisor
    return CharacteristicMeans(cosines, sines, counts > 0)


def _embed(view: MatchContext, inputs: Tensor) -> Tensor:
    """float32 (n, embedding) of length 1."""
    return F.normalize(view.network.embed(inputs), dim=1)


def _modulus(means: CharacteristicMeans) -> Tensor:
    # The floor keeps the slope finite where a characteristic function is 0.
    return (means.cosines.square() + means.sines.square()).clamp(min=_MIN_PHASE_TERM).sqrt()


def _only(means: CharacteristicMeans, chosen: Tensor) -> CharacteristicMeans:
    return CharacteristicMeans(means.cosines[chosen], means.sines[chosen], means.present[chosen])
