"""Which networks an objective looks through: the third of the engine's four parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks.architectures import Architecture, default_architecture
from fedcl_distill.networks.base import Network
from fedcl_distill.seeding import derive_seed


class NetworkSource(Protocol):
    """Hands out the network of each view."""

    def draw(self, real: LabelledData, *, seed: int, device: torch.device) -> Network:
        """The network of the view whose draws are named by ``seed``."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FreshRandom:
    """A new randomly initialised network for every view (Zhao and Bilen 2023, section 3.2).

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
    """

    architecture: Architecture | None = None

    def draw(self, real: LabelledData, *, seed: int, device: torch.device) -> Network:
        seed = derive_seed(seed, "network")
        architecture = self.architecture or default_architecture(real.sample_shape)
        network = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=device)
        return network.requires_grad_(False)

    def settings(self) -> dict[str, Any]:
        return {"networks": "fresh random", "architecture": str(self.architecture or "default")}
