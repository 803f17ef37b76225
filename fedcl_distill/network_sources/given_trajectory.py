"""A path through weight space that is given, such as that of a federation's global model (Pi et al. 2023, DynaFed)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.around import digest_of
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.networks import Network
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import generator_for


@dataclass(frozen=True)
class GivenTrajectory:
    """Each view starts at a random snapshot, and its goal is the snapshot ``segment`` later.

    Attributes:
        snapshots: networks of one architecture, in the order of time.
        segment: snapshots from start to goal.

    Raises:
        SettingsError: on construction, if no snapshot is ``segment`` ≥ 1 after another.
    """

    gives_goal: ClassVar[bool] = True
    snapshots: tuple[Network, ...] = field(compare=False)
    segment: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.segment < len(self.snapshots):
            raise SettingsError(
                f"a trajectory of {len(self.snapshots)} snapshots has no two that are {self.segment} apart; "
                "take more snapshots, or a segment of at least 1 and less than their number"
            )

    def open(self, problem: Problem) -> Supply:
        return _Supply(problem, self)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "given trajectory",
            "segment": self.segment,
            "snapshots": [digest_of(network) for network in self.snapshots],
        }


@dataclass
class _Supply(Supply):
    problem: Problem
    source: GivenTrajectory

    def draw(self, index: int, seed: int) -> Drawn:
        starts = len(self.source.snapshots) - self.source.segment
        start = int(torch.randint(starts, (), generator=generator_for(seed, "snapshot")))
        return Drawn(self._copy(start), self._copy(start + self.source.segment))

    def _copy(self, number: int) -> Network:
        return copy.deepcopy(self.source.snapshots[number]).to(self.problem.device).requires_grad_(False)
