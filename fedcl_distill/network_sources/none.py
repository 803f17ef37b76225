"""No networks: for objectives with a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.networks import Network
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import isolated_rng


@dataclass(frozen=True)
class NoNetwork:
    """Hands out the identity, which objectives with a closed form do not look at."""

    gives_goal: ClassVar[bool] = False

    def open(self, problem: Problem) -> Supply:
        return _NoSupply()

    def settings(self) -> dict[str, Any]:
        return {"networks": "none"}


class _NoSupply(Supply):
    def draw(self, index: int, seed: int) -> Drawn:
        return Drawn(no_network())


def no_network() -> Network:
    """What a kernel in closed form does not look at; its weights are drawn without touching the global generator."""
    with isolated_rng(0):
        return Network([nn.Identity()], 1, 1)
