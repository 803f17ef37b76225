"""Several fresh networks at once, looked through as one: random features of a Gaussian process (Loo et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, isolated_rng


@dataclass(frozen=True)
class FreshEnsemble:
    """New random networks for every view, whose embeddings side by side are one network's.

    Inner products of embeddings, divided by their size, are then means over the networks, which come the closer to the
    kernel of an infinitely wide network the more there are.

    Attributes:
        architecture: of each network; None takes a ConvNet for images and an MLP for features.
        count: networks in each view.
    """

    gives_goal: ClassVar[bool] = False
    architecture: Architecture | None = None
    count: int = 8

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"an ensemble needs at least one network, got {self.count}")

    def open(self, problem: Problem) -> Supply:
        return _EnsembleSupply(
            problem, self.architecture or default_architecture(problem.real.sample_shape), self.count
        )

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "fresh ensemble",
            "architecture": str(self.architecture or "default"),
            "ensemble_size": self.count,
        }


class SideBySide(nn.Module):
    """float (n, sum of embedding sizes): embeddings of all networks."""

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([network.embed(inputs) for network in self.networks if isinstance(network, Network)], dim=1)


@dataclass
class _EnsembleSupply(Supply):
    problem: Problem
    architecture: Architecture
    count: int

    def draw(self, index: int, seed: int) -> Drawn:
        real, device = self.problem.real, self.problem.device
        members = [
            self.architecture.build(
                real.sample_shape, real.num_classes, seed=derive_seed(seed, "network", place), device=device
            )
            for place in range(self.count)
        ]
        with isolated_rng(derive_seed(seed, "classifier")):
            size = sum(member.embedding_size for member in members)
            whole = Network([SideBySide(members)], size, real.num_classes)
        return Drawn(whole.to(device).requires_grad_(False))
