"""Networks nobody has trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.networks import Architecture, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed


@dataclass(frozen=True)
class FreshRandom:
    """A new randomly initialised network for every view (Zhao and Bilen 2023, section 3.2).

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
    """

    gives_goal: ClassVar[bool] = False
    architecture: Architecture | None = None

    def open(self, problem: Problem) -> Supply:
        return _FreshSupply(problem, self.architecture or default_architecture(problem.real.sample_shape))

    def settings(self) -> dict[str, Any]:
        return {"networks": "fresh random", "architecture": str(self.architecture or "default")}


@dataclass
class _FreshSupply(Supply):
    problem: Problem
    architecture: Architecture

    def draw(self, index: int, seed: int) -> Drawn:
        real = self.problem.real
        network = self.architecture.build(
            real.sample_shape, real.num_classes, seed=derive_seed(seed, "network"), device=self.problem.device
        )
        return Drawn(network.requires_grad_(False))
