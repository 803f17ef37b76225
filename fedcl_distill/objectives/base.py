"""What must agree between the real and the synthetic side: the first of the engine's four parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from fedcl_distill.augmentation import Draw
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks.base import Network
from fedcl_distill.seeding import generator_for

TargetT = TypeVar("TargetT")


@dataclass(frozen=True)
class View:
    """One way to look at both sides: a network and one draw of the augmentation (a group of parameters a class).

    Attributes:
        network: where both sides are looked at.
        augment: the augmentation, drawn; the groups are the classes.
        seed: names every further draw of this view, such as the real batch.
    """

    network: Network
    augment: Draw
    seed: int


class Objective(Protocol[TargetT]):
    """Split in two, so that the costly real side is computed once and serves several synthetic steps."""

    def target(self, view: View, real: RealSide) -> TargetT:
        """What the real data look like in this view; constant, without a graph."""
        ...

    def losses(self, view: View, target: TargetT, inputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Disagreement of the synthetic ``inputs`` (n, …) and ``labels`` with the target: scalars that add up to it.

        Each is differentiated before the next is asked for, so that its activations are still in the processor's
        caches and never have to be held all at once. An objective that does not fall into addends yields one.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


class RealSide:
    """The real data as objectives draw from them: so many samples of each class, without replacement."""

    def __init__(self, data: LabelledData, device: torch.device) -> None:
        self.data = data
        self.device = device
        self._rows = [data.indices_of(label) for label in range(data.num_classes)]

    def draw(self, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
        """``per_class`` samples of every class, all of them where a class has fewer.

        Returns:
            float32 (n, …) network inputs and int64 (n,) labels, in order of class.
        """
        generator = generator_for(seed, "real batch")
        picks = [rows[_choose(len(rows), per_class, generator)] for rows in self._rows]
        chosen = torch.cat(picks)
        return self.data.inputs(chosen).to(self.device), self.data.labels[chosen].to(self.device)


def _choose(available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """int64 (min(available, wanted),): distinct positions below ``available``."""
    if wanted >= available:
        return torch.arange(available)
    if wanted * 20 < available:  # few of many: rejecting doubles is cheaper than permuting all
        picks: Tensor = torch.unique(torch.randint(available, (wanted * 2,), generator=generator))
        if len(picks) >= wanted:
            return picks[torch.randperm(len(picks), generator=generator)[:wanted]]
    return torch.randperm(available, generator=generator)[:wanted]
