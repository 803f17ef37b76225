"""Statistics of many parties added up so that a few that lie cannot carry the sum away.

This needs every party's sums in the open: it excludes adding them up in secret (secure aggregation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.robust import CENTRES, capped
from fedcl_distill.statistics.sums import FEATURES, SAMPLES, ClassStatistics, Sums, add_up


@dataclass(frozen=True)
class RobustSum:
    """How statistics are added up.

    Attributes:
        centre: of the parties' means of each class in each view, weighted by their counts: "mean" is the plain sum;
            "geometric-median", "median" and "trimmed-mean" are hardly moved by a minority.
        count_share: the most, in (0, 1], that one party's count may be of a class's; the rest of what it says is not
            believed. 1 believes all.

    Raises:
        SettingsError: on construction, if the centre is unknown or the share out of range.
    """

    centre: str = "mean"
    count_share: float = 1.0

    def __post_init__(self) -> None:
        if self.centre not in CENTRES:
            raise SettingsError(f"statistics: unknown centre {self.centre!r}; known: {', '.join(CENTRES)}")
        if not 0 < self.count_share <= 1:
            raise SettingsError(f"statistics: count_share must be in (0, 1], got {self.count_share}")

    def add_up(self, many: Sequence[ClassStatistics]) -> ClassStatistics:
        """The sum of at least one, in the order given: centres of the believed means, times the believed counts.

        Raises:
            DataError: there is none, or they cannot be added.
        """
        if self.centre == "mean" and self.count_share == 1:
            return add_up(many)
        if not many:
            raise DataError("there are no statistics to add up")
        believed = [self._believed(one, factors) for one, factors in zip(many, self._factors(many), strict=True)]
        total = add_up(believed)
        if self.centre == "mean":
            return total
        return replace(total, sums={name: self._central(name, total, believed) for name in total.sums})

    def _factors(self, many: Sequence[ClassStatistics]) -> Tensor:
        """float64 (parties, classes), in [0, 1]: what part of its count each party may have."""
        counts = torch.stack([one.class_counts for one in many]).double()
        allowed = torch.stack([capped(column, self.count_share) for column in counts.T], dim=1)
        return allowed / counts.clamp(min=1)

    def _believed(self, one: ClassStatistics, factors: Tensor) -> ClassStatistics:
        """The same means, of fewer samples; a class that is there stays there."""
        total = _scaled(one.sums[SAMPLES].counts, factors)
        sums = {}
        for name, own in one.sums.items():
            counts = torch.minimum(_scaled(own.counts, factors), total) if name == FEATURES else total
            sums[name] = Sums(counts, own.means * counts[..., None])
        return replace(one, sums=sums)

    def _central(self, name: str, total: ClassStatistics, many: Sequence[ClassStatistics]) -> Sums:
        sums = total.sums[name]
        means = torch.stack([one.sums[name].means for one in many])
        counts = torch.stack([one.sums[name].counts for one in many]).double()
        values = torch.zeros_like(sums.values)
        for view, label in torch.nonzero(sums.counts).tolist():
            centre = CENTRES[self.centre](means[:, view, label], counts[:, view, label])
            values[view, label] = centre * sums.counts[view, label]
        return Sums(sums.counts, values)


def _scaled(counts: Tensor, factors: Tensor) -> Tensor:
    """int64: ``counts`` (views, classes) times ``factors`` (classes,), rounded up."""
    return (counts * factors - 1e-9).ceil().clamp(min=0).long()
