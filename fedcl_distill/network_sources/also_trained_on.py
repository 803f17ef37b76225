"""Networks of any source that train on more than what is distilled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.fingerprint import fingerprint
from fedcl_distill.network_sources.base import NetworkSource, Supply
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import generator_for
from fedcl_distill.systematic import systematic


@dataclass(frozen=True)
class AlsoTrainedOn:
    """``source``, whose networks train on ``further`` samples beside those that are distilled.

    An experience of a stream has few of the classes that a model must tell apart in the end. Networks that trained on
    these alone see what tells them from each other; networks that trained on a few samples of the others as well see
    what tells them from all. Classes are seen equally often, in passes as long as there are samples of both together.
    A source that trains nothing on real data stays as it is.

    Attributes:
        source: of the networks.
        further: of the same classes, sample shape and normalisation as what is distilled.
    """

    source: NetworkSource
    further: LabelledData

    @property
    def gives_goal(self) -> bool:
        return self.source.gives_goal

    def open(self, problem: Problem) -> Supply:
        together = _joined(problem.real, self.further)
        weights = (1 / together.class_counts.double())[together.labels]
        rows = systematic(weights, generator_for(problem.seed, "further samples"))
        return self.source.open(replace(problem, real=together.subset(rows)))

    def settings(self) -> dict[str, Any]:
        return {**self.source.settings(), "networks_also_see": fingerprint(self.further, len(self.further))}


def _joined(real: LabelledData, further: LabelledData) -> LabelledData:
    lows, highs = zip(real.value_range, further.value_range, strict=True)
    return replace(
        real,
        samples=torch.cat([real.unit(), further.unit()]),
        labels=torch.cat([real.labels, further.labels]),
        value_range=(min(lows), max(highs)),
        groups=None,
    )
