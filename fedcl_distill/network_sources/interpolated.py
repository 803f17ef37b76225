"""Networks between untrained and trained ones: NCFM (Wang et al. 2025)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.network_sources.episode import network_of, weights_on_cpu
from fedcl_distill.network_sources.pretraining import pretrained_pool
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.recipes import recipe_for_real
from fedcl_distill.seeding import generator_for
from fedcl_distill.training import Recipe


@dataclass(frozen=True)
class Interpolated:
    """Each view's network lies on the line from a network's initial weights to those after training on the real data.

    Where on the line is uniformly random, and which of the pretrained networks as well; the goal of a view is the
    trained end (Wang et al. 2025; interpolated as in their code). A budget in seconds trains fewer
    networks, and ends the training of the first one early if it must.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        networks: pretrained before the first step.
        recipe: how; None takes :func:`~fedcl_distill.recipes.recipe_for_real`.

    Raises:
        SettingsError: on construction, if there is no network.
    """

    gives_goal: ClassVar[bool] = True
    architecture: Architecture | None = None
    networks: int = 20
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if self.networks < 1:
            raise SettingsError(f"at least one network must be pretrained, got {self.networks}")

    def open(self, problem: Problem) -> Supply:
        """The first draw pretrains the networks, and raises DivergenceError where a loss stopped being finite."""
        return _InterpolatedSupply(self, problem)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "interpolated",
            "architecture": str(self.architecture or "default"),
            "pretrained_networks": self.networks,
            "pretraining_epochs": None if self.recipe is None else self.recipe.epochs,
            "pretraining_learning_rate": None if self.recipe is None else self.recipe.learning_rate,
            "pretraining_batch_size": None if self.recipe is None else self.recipe.batch_size,
        }


class _InterpolatedSupply(Supply):
    def __init__(self, source: Interpolated, problem: Problem) -> None:
        self._source, self._problem = source, problem
        self._architecture = source.architecture or default_architecture(problem.real.sample_shape)
        self._pool: list[tuple[Network, Network]] = []

    def draw(self, index: int, seed: int) -> Drawn:
        if not self._pool:  # not earlier, for a resumed run need not train them again
            self._pool = self._pretrained()
        generator = generator_for(seed, "interpolation")
        initial, trained = self._pool[int(torch.randint(len(self._pool), (), generator=generator))]
        return Drawn(between(initial, trained, float(torch.rand((), generator=generator))), trained)

    def state(self) -> dict[str, Any]:
        """All weights: how far a budget in seconds let each network get is not to be repeated."""
        return {"pool": [[weights_on_cpu(network) for network in pair] for pair in self._pool]}

    def restore(self, state: dict[str, Any]) -> None:
        pairs = [[network_of(one, self._architecture, self._problem) for one in pair] for pair in state["pool"]]
        self._pool = [(initial, trained) for initial, trained in pairs]

    def _pretrained(self) -> list[tuple[Network, Network]]:
        recipe = self._source.recipe or recipe_for_real(self._problem.real)
        pool = pretrained_pool(self._problem, self._architecture, recipe, self._source.networks)
        return [(pair.initial, pair.trained) for pair in pool]


@torch.no_grad()
def between(initial: Network, trained: Network, fraction: float) -> Network:
    """A network of weights that are ``fraction`` of the way from ``initial`` to ``trained``; both stay as they are."""
    network = copy.deepcopy(initial)
    for weight, end in zip(network.parameters(), trained.parameters(), strict=True):
        weight.lerp_(end, fraction)
    return network
