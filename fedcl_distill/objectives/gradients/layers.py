"""Which weights of a network take part when gradients are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from fedcl_distill.networks.base import Network


class Layers(Protocol):
    """Chooses parameters of any network."""

    name: ClassVar[str]

    def of(self, network: Network) -> dict[str, Tensor]:
        """The chosen parameters by name, detached; each has at least two dimensions."""
        ...


@dataclass(frozen=True)
class AllWeights:
    """Every weight, but neither biases nor scales and shifts of norms (Zhao et al. 2021, their code)."""

    name: ClassVar[str] = "all weights"

    def of(self, network: Network) -> dict[str, Tensor]:
        return {name: one.detach() for name, one in network.named_parameters() if one.ndim > 1}


@dataclass(frozen=True)
class HiddenWeights:
    """The weights below the classifier: the convolutions of a ConvNet (Kim et al. 2022, their code)."""

    name: ClassVar[str] = "hidden weights"

    def of(self, network: Network) -> dict[str, Tensor]:
        return {name: one for name, one in AllWeights().of(network).items() if not name.startswith("classifier.")}
