"""NCFM (Wang et al. 2025): characteristic functions of embeddings must agree, class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunk_size, chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Objective, View
from fedcl_distill.objectives.distribution.class_means import groups_of_classes
from fedcl_distill.seeding import generator_for
from fedcl_distill.sides import RealSide, SyntheticSide

_SMALLEST_PHASE_TERM = 1e-12  # below it rounding rules, and the square root has no slope


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


@dataclass(frozen=True)
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
        real_per_class: real samples a class in each view.

    Raises:
        SettingsError: on construction, if a number is not positive, or a weight negative or both 0.
    """

    frequencies: int = 4096
    amplitude_weight: float = 0.5
    phase_weight: float = 0.5
    scale: float = 300.0
    real_per_class: int = 1024

    def __post_init__(self) -> None:
        if self.frequencies < 1 or self.real_per_class < 1 or self.scale <= 0:
            raise SettingsError("characteristic functions need a frequency, a real sample a class and a positive scale")
        if min(self.amplitude_weight, self.phase_weight) < 0 or self.amplitude_weight + self.phase_weight == 0:
            raise SettingsError("amplitude and phase need weights that are not negative and not both 0")

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "characteristic function",
            "frequencies": self.frequencies,
            "amplitude_weight": self.amplitude_weight,
            "phase_weight": self.phase_weight,
            "characteristic_scale": self.scale,
            "real_per_class": self.real_per_class,
        }

    @torch.no_grad()
    def target(self, view: View, real: RealSide) -> CharacteristicTarget:
        inputs, labels = real.draw(self.real_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        size = view.network.embedding_size
        generator = generator_for(view.seed, "frequencies")
        frequencies = torch.randn(self.frequencies, size, generator=generator).to(inputs)
        classes = real.data.num_classes
        cosines = inputs.new_zeros(classes, self.frequencies)
        sines = torch.zeros_like(cosines)
        for part, of_part in chunked(inputs, labels):
            phases = _embed(view, part) @ frequencies.T
            cosines.index_add_(0, of_part, phases.cos())
            sines.index_add_(0, of_part, phases.sin_())
        counts = torch.bincount(labels, minlength=classes)
        divisor = counts.clamp(min=1)[:, None]
        return CharacteristicTarget(frequencies, CharacteristicMeans(cosines / divisor, sines / divisor, counts > 0))

    def losses(self, view: View, target: CharacteristicTarget, synthetic: SyntheticSide) -> Iterator[Tensor]:
        inputs, classes = synthetic.inputs, synthetic.classes
        for members in groups_of_classes(classes, len(target.real.present), chunk_size(inputs)):
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
        phase = (2 * (of_real * of_synthetic - aligned)).clamp(min=_SMALLEST_PHASE_TERM)
        return (self.amplitude_weight * amplitude + self.phase_weight * phase + _SMALLEST_PHASE_TERM).sqrt().mean(dim=1)


def characteristic_means(embeddings: Tensor, labels: Tensor, frequencies: Tensor, classes: int) -> CharacteristicMeans:
    """Characteristic functions of ``embeddings`` (n, d) at ``frequencies`` (f, d), class by class; differentiable."""
    phases = embeddings @ frequencies.T
    counts = torch.bincount(labels, minlength=classes)
    divisor = counts.clamp(min=1)[:, None]
    zeros = phases.new_zeros(classes, phases.shape[1])
    cosines = zeros.index_add(0, labels, phases.cos()) / divisor
    sines = zeros.index_add(0, labels, phases.sin()) / divisor
    return CharacteristicMeans(cosines, sines, counts > 0)


def _embed(view: View, inputs: Tensor) -> Tensor:
    """float32 (n, embedding) of length 1."""
    return F.normalize(view.network.embed(inputs), dim=1)


def _modulus(means: CharacteristicMeans) -> Tensor:
    # The floor keeps the slope finite where a characteristic function is 0.
    return (means.cosines.square() + means.sines.square()).clamp(min=_SMALLEST_PHASE_TERM).sqrt()


def _only(means: CharacteristicMeans, chosen: Tensor) -> CharacteristicMeans:
    return CharacteristicMeans(means.cosines[chosen], means.sines[chosen], means.present[chosen])
