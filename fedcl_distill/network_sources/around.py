"""Networks around a given one: what the clients of FedDM look through (Xiong et al. 2023)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.network_sources.perturbation import at_distance
from fedcl_distill.networks import Network
from fedcl_distill.problem import Problem


@dataclass(frozen=True)
class AroundNetwork:
    """Each view moves the same network by a fixed distance in a new random direction.

    FedDM (Xiong et al. 2023) draws weights from a truncated Gaussian inside a ball around the global model. In as many
    dimensions as a network has, nearly all of a Gaussian lies close to one sphere: here, all of it lies on that of the
    ball.

    Attributes:
        network: in the middle.
        radius: the distance, in the Euclidean norm of all parameters; 0 leaves the network as it is, 5 in the paper.

    Raises:
        SettingsError: on construction, if the radius is negative or not finite.
    """

    gives_goal: ClassVar[bool] = False
    network: Network = field(compare=False)
    radius: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.radius < math.inf:
            raise SettingsError(f"a radius must be finite and not negative, got {self.radius}")

    def open(self, problem: Problem) -> Supply:
        """SettingsError if the network tells another number of classes apart than the data have."""
        known, classes = self.network.classifier.out_features, problem.real.num_classes
        if known != classes:
            raise SettingsError(f"the network knows {known} classes, {problem.real.name} has {classes}")
        return _Supply(problem, self)

    def settings(self) -> dict[str, Any]:
        return {"networks": "around a given one", "radius": self.radius, "network": digest_of(self.network)}


@dataclass
class _Supply(Supply):
    problem: Problem
    source: AroundNetwork

    def draw(self, index: int, seed: int) -> Drawn:
        network = at_distance(self.source.network, self.source.radius, seed=seed)
        return Drawn(network.to(self.problem.device).requires_grad_(False))


def digest_of(network: Network) -> str:
    """16 hexadecimal digits that name the weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
