"""What must agree between the real and the synthetic side: the first of the engine's parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from fedcl_distill.augmentation import Draw
from fedcl_distill.networks.base import Network
from fedcl_distill.sides import RealSide, SyntheticSide

TargetT = TypeVar("TargetT")


@dataclass(frozen=True)
class View:
    """One way to look at both sides: a network and one draw of the augmentation (a group of parameters a class).

    Attributes:
        network: where both sides are looked at. It belongs to its source: an objective leaves its weights alone.
        augment: the augmentation, drawn; the groups are the classes.
        seed: names every further draw of this view, such as the real batch.
        goal: the same network after (more) training on the real data, from sources that know it.
        index: number of the view in its run, from 0.
    """

    network: Network
    augment: Draw
    seed: int
    goal: Network | None = None
    index: int = 0


@dataclass(frozen=True)
class Learned:
    """Something an objective learns beside the samples, such as a learning rate.

    Attributes:
        start: its first value.
        learning_rate: of the optimiser that learns the samples, for this.
    """

    start: Tensor
    learning_rate: float


class Objective(ABC, Generic[TargetT]):
    """Split in two, so that the costly real side is computed once and serves several synthetic steps.

    Attributes:
        needs_network: it looks through the view's network; False for a closed-form kernel.
        needs_goal: it compares with the view's ``goal``, which only some sources of networks give.
        reads_labels: its loss depends differentiably on ``SyntheticSide.labels``, so that they can be soft or learned.
            One that does not goes by ``SyntheticSide.classes``.
    """

    needs_network: ClassVar[bool] = True
    needs_goal: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False

    @abstractmethod
    def target(self, view: View, real: RealSide) -> TargetT:
        """What the real data look like in this view; constant, without a graph."""

    @abstractmethod
    def losses(self, view: View, target: TargetT, synthetic: SyntheticSide) -> Iterator[Tensor]:
        """Disagreement of the synthetic side with the target: scalars that add up to it.

        Each is differentiated before the next is asked for, so that its activations are still in the processor's
        caches and never have to be held all at once. An objective that does not fall into addends yields one.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""

    def learned(self) -> dict[str, Learned]:
        """What it learns beside the samples, by name; nothing unless overridden."""
        return {}
