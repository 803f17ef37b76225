"""Which coordinates of two trained networks are compared when trajectories are matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError


class Coordinates(Protocol):
    """Chooses weights, by what the student and the expert made of them."""

    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        """bool, of the shape of both: which weights of one layer take part in the loss; constant, without a graph."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class AllCoordinates:
    """Every weight (Cazenavette et al. 2022)."""

    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        return torch.ones_like(student, dtype=torch.bool)

    def settings(self) -> dict[str, Any]:
        return {"coordinates": "all"}


@dataclass(frozen=True)
class PrunedCoordinates:
    """Only weights that the student can match (Li et al. 2022, Dataset distillation using parameter pruning).

    A weight is left out of both norms of the loss where the similarity of the student's and the expert's value is
    below a threshold. The similarity of two numbers is the ratio of the smaller to the larger magnitude: 1 for equal
    ones, falling to 0 for ones of different scale; 0 for opposite signs, 1 for two zeros. The paper could not be read
    for its exact measure: both this one and the default threshold are of our choosing.

    Attributes:
        threshold: the smallest similarity that is kept, in [0, 1]; 0 keeps all.

    Raises:
        SettingsError: on construction, if the threshold lies outside [0, 1].
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"a similarity threshold lies in [0, 1], got {self.threshold}")

    @torch.no_grad()
    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        smaller = torch.minimum(student.abs(), expert.abs())
        larger = torch.maximum(student.abs(), expert.abs())
        # Compared as products, so that two zeros need no division; unlike signs have similarity 0.
        similarity_of_signed = torch.where(student * expert < 0, torch.zeros_like(smaller), smaller)
        return similarity_of_signed >= self.threshold * larger

    def settings(self) -> dict[str, Any]:
        return {"coordinates": "pruned", "pruning_threshold": self.threshold}
