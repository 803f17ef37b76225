"""First samples drawn from the statistics alone: no real sample is the start of a synthetic one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.statistics.features import coarse, coarse_shape, fine, from_products
from fedcl_distill.statistics.sums import MOMENTS, SAMPLES, ClassStatistics


@dataclass(frozen=True, eq=False)
class FromMoments:
    """The mean of the class, plus coarse Gaussian variation with the covariance that the statistics tell.

    Where they tell no second moments, the variation is white noise of the data's own deviation. Values are clamped to
    the range of real ones.

    Attributes:
        statistics: of all data together.
    """

    statistics: ClassStatistics

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        shape = self.statistics.domain.sample_shape
        parts = []
        for label, count in enumerate(counts):
            generator = generator_for(seed, "moments", label)
            mean = self.statistics.sums[SAMPLES].means[0, label].float().view(shape)
            parts.append(mean + self._variation(label, count, generator))
        low, high = real.value_range
        normalisation = self.statistics.domain.normalisation
        return normalisation.apply(normalisation.invert(torch.cat(parts)).clamp(low, high))

    def _variation(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        """float32 (count, …), of mean 0."""
        statistics = self.statistics
        shape = coarse_shape(statistics.spec, statistics.domain)
        if shape is None:
            return torch.randn(count, *statistics.domain.sample_shape, generator=generator)
        root = self._root_of_covariance(label, shape)
        white = torch.randn(count, len(root), generator=generator)
        return fine(white @ root.T, shape, statistics.domain.sample_shape)

    def _root_of_covariance(self, label: int, shape: tuple[int, ...]) -> Tensor:
        """float32 (size, size): its product with its transpose is the covariance of coarse samples of this class."""
        statistics = self.statistics
        mean = coarse(statistics.sums[SAMPLES].means[0, label].view(1, *statistics.domain.sample_shape), shape)[0]
        second = from_products(statistics.sums[MOMENTS].means[0, label], len(mean))
        values, vectors = torch.linalg.eigh(second - torch.outer(mean, mean))
        root: Tensor = (vectors * values.clamp(min=0).sqrt()).float()
        return root

    def settings(self) -> dict[str, Any]:
        return {"initial": "moments"}
