"""Gradient matching whose real side is seen through noise alone (PSG)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network
from fedcl_distill.objectives.base import Objective, View
from fedcl_distill.objectives.gradients.matching import Gradient, GradientMatching
from fedcl_distill.objectives.gradients.per_sample import check_per_sample, clipped_sum, per_sample_gradients
from fedcl_distill.privacy.noise import NoiseSource
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True, eq=False)
class PrivateGradientMatching(Objective[Mapping[int, Gradient]]):
    """The distance of the synthetic samples' gradient from a noisy sum of clipped gradients of real ones.

    Each view is one query of a Poisson sampled Gaussian mechanism (Abadi et al. 2016, algorithm 1): every record is
    in it with chance ``sampling_rate``, by itself; its gradient is scaled down to the norm ``clip``; noise of deviation
    ``noise_multiplier`` · ``clip`` goes onto every number of the sum, once. One record more or less changes the sum by
    at most ``clip``. With ``matching.over`` "class" there is a sum for every class, of its records alone: one record
    is in one of them, so that the sensitivity is the same, but each sum is of fewer records. Several synthetic steps
    in one view look at the same noisy sum, which costs nothing more.

    The real data are here and nowhere else: what an engine runs on is blank.

    Attributes:
        matching: how gradients are compared.
        data: the private records, publicly scaled.
        sampling_rate: in (0, 1].
        clip: L2 norm of one record's gradient, at most.
        noise_multiplier: 0 for no noise.
        noise: where noise and samples come from.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    reads_labels: ClassVar[bool] = True
    matching: GradientMatching
    data: LabelledData
    sampling_rate: float
    clip: float
    noise_multiplier: float
    noise: NoiseSource

    def __post_init__(self) -> None:
        if not 0 < self.clip < math.inf or not 0 < self.sampling_rate <= 1 or not 0 <= self.noise_multiplier < math.inf:
            raise SettingsError(
                "private gradients need clip > 0, sampling_rate in (0, 1] and noise_multiplier ≥ 0, "
                f"got {self.clip}, {self.sampling_rate} and {self.noise_multiplier}"
            )

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "private gradient matching",
            "gradient_distance": self.matching.distance.name,
            "matched_over": self.matching.over,
            "clip": self.clip,
            "sampling_rate": self.sampling_rate,
            "noise_multiplier": self.noise_multiplier,
        }

    def target(self, view: View, real: RealSide) -> Mapping[int, Gradient]:
        check_per_sample(view.network)
        classes = self.data.num_classes
        expected = self.sampling_rate * len(self.data)  # public, unlike the number of records that are drawn
        sums = self._clipped(view, self.sample(view.index), real.device)
        if self.matching.over == "all":
            whole = [self._noisy(one.sum(dim=0), view.index, layer) / expected for layer, one in enumerate(sums)]
            return dict.fromkeys(range(classes), whole)
        noisy = [self._noisy(one, view.index, layer) * classes / expected for layer, one in enumerate(sums)]
        return {label: [one[label] for one in noisy] for label in range(classes)}

    def losses(self, view: View, target: Mapping[int, Gradient], synthetic: SyntheticSide) -> Iterator[Tensor]:
        yield from self.matching.losses(view, target, synthetic)

    def sample(self, index: int) -> Tensor:
        """int64 (m,): the records that the view of this number looks at."""
        return (self.noise.uniform(len(self.data), "records", index) < self.sampling_rate).nonzero().flatten()

    def _clipped(self, view: View, rows: Tensor, device: torch.device) -> list[Tensor]:
        """float32 (classes, …) for each weight."""
        sums = [one.new_zeros(self.data.num_classes, *one.shape) for one in self._weights(view.network)]
        if len(rows) == 0:
            return sums
        labels = self.data.labels[rows].to(device)
        inputs = view.augment(self.data.inputs(rows).to(device), labels)
        for part, wanted in chunked(inputs, labels):
            gradients = per_sample_gradients(view.network, part, wanted)
            found = clipped_sum(gradients, wanted, self.data.num_classes, self.clip)
            sums = [one + other for one, other in zip(sums, found, strict=True)]
        return sums

    def _weights(self, network: Network) -> Gradient:
        return list(self.matching.layers.of(network).values())

    def _noisy(self, values: Tensor, index: int, layer: int) -> Tensor:
        if self.noise_multiplier == 0:
            return values
        drawn = self.noise.normal(values.shape, "gradients", index, layer)
        return (values.double() + self.noise_multiplier * self.clip * drawn.to(values.device)).float()
