"""Wrong labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, Natural, Range, settings
from simulations.attacks.base import Attack, Goal, require, require_class


@settings(kw_only=True)
class LabelFlip(Attack):
    """Samples get the label of another class: the next one, or a target for those of a source.

    All attackers lie alike. With a share below 1 they adapt to a server that looks for disagreement: they hide wrong
    labels among right ones.

    Attributes:
        source, target: classes; -1 for both flips every class to the next one.
        share: of the samples concerned, in (0, 1].
    """

    source: Annotated[int, Range(ge=-1)] = -1
    target: Annotated[int, Range(ge=-1)] = -1
    share: Annotated[float, Range(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        require((self.source < 0) == (self.target < 0), "a flip needs both source and target, or neither")
        require(self.source < 0 or self.source != self.target, "source and target are the same class")

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        chosen = torch.rand(len(data), generator=generator_for(seed, "flip"), dtype=torch.float64) < self.share
        if self.source < 0:
            return replace(data, labels=torch.where(chosen, (data.labels + 1) % data.num_classes, data.labels))
        require_class(max(self.source, self.target), data)
        return replace(data, labels=torch.where(chosen & (data.labels == self.source), self.target, data.labels))

    def goal(self, test: LabelledData) -> Goal | None:
        return None if self.source < 0 else Goal(test.subset(test.indices_of(self.source)), self.target)


@settings(kw_only=True)
class ClassFlood(Attack):
    """All samples that are not of the target's class are said to be, and to be very many: a flood of one class.

    Attributes:
        target: the class.
    """

    inflation: Count = 100
    target: Natural = 0

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        require_class(self.target, data)
        others = torch.nonzero(data.labels != self.target).flatten()
        flood = data.subset(others) if len(others) else data
        return replace(flood, labels=torch.full_like(flood.labels, self.target))
