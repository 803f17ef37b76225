"""The objective: synthetic samples shall have the class means that the statistics say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.objectives.base import Objective, View
from fedcl_distill.objectives.distribution.class_means import ClassMeans, distances_of_means
from fedcl_distill.parameterizations.checks import check_integer
from fedcl_distill.sides import RealSide, SyntheticSide
from fedcl_distill.statistics.features import FeatureMap, feature_map
from fedcl_distill.statistics.sums import FEATURES, ClassStatistics


@dataclass(frozen=True)
class ViewTarget:
    """One view of the statistics: how it looks at samples, and what the real ones gave."""

    features: FeatureMap
    real: ClassMeans


@dataclass(frozen=True, eq=False)
class StatisticsMatching(Objective[ViewTarget]):
    """Σ over classes of ‖mean of the statistics − mean of the synthetic samples‖² in one view at a time.

    That is distribution matching (Zhao and Bilen 2023, equation 6) where the real side was summed beforehand. Views are
    taken in turn; those held out never are. The real data of a run are not looked at, and the networks are those of the
    statistics.

    Attributes:
        statistics: of all data together.
        held_out: so many of the last views are left out, to tell by when the samples fit the others all too well.

    Raises:
        SettingsError: on construction, if no view is left.
    """

    needs_network: ClassVar[bool] = False

    statistics: ClassStatistics
    held_out: int = 0

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "statistics matching",
            "statistics": self.statistics.spec.settings(),
            "statistics_digest": self.statistics.digest(),
            "held_out_views": self.held_out,
        }

    def __post_init__(self) -> None:
        check_integer("statistics: held_out", self.held_out, 0, self.statistics.spec.views - 1)

    @property
    def views(self) -> range:
        """The views that are matched."""
        return range(self.statistics.spec.views - self.held_out)

    @property
    def held_out_views(self) -> range:
        """The views that are not."""
        return range(self.statistics.spec.views - self.held_out, self.statistics.spec.views)

    def target(self, view: View, real: RealSide) -> ViewTarget:
        return self.look(self.views[view.index % len(self.views)], real.device)

    def look(self, number: int, device: torch.device) -> ViewTarget:
        """The view of this number."""
        statistics = self.statistics
        features, sums = feature_map(statistics.spec, statistics.domain, number, device), statistics.sums[FEATURES]
        means = ClassMeans(sums.means[number].float().to(device), (sums.counts[number] > 0).to(device))
        return ViewTarget(features, means)

    def losses(self, view: View, target: ViewTarget, synthetic: SyntheticSide) -> Iterator[Tensor]:
        yield from distances_of_means(target.features, target.real, synthetic.inputs, synthetic.classes)

    @torch.no_grad()
    def mismatch(self, number: int, inputs: Tensor, classes: Tensor) -> float:
        """The loss of samples, float32 (n, …), of these classes in the view of this number."""
        target = self.look(number, inputs.device)
        return sum(loss.item() for loss in distances_of_means(target.features, target.real, inputs, classes))
