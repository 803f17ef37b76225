"""Which networks an objective looks through: the third of the engine's parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.networks import Network


@dataclass(frozen=True)
class DrawnNetwork:
    """The network of a view, and where it knows that: the same network after (more) training on the real data."""

    network: Network
    target_network: Network | None = None


class NetworkSampler:
    """Hands out the networks of one run. Every hook but :meth:`draw` does nothing unless overridden.

    To resume a run exactly, what :meth:`draw` returns must follow from its arguments, the problem and :meth:`state`
    alone, and asking again for the same view must give the same network as long as :meth:`update` was not called.
    """

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        """The network of view number ``index``, whose random draws are named by ``seed``."""
        raise NotImplementedError

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        """After the last step of view ``index``: let networks learn from the synthetic samples as they are now."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: numbers, texts, tensors and containers of these."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""


class NetworkSource(ABC):
    """Which networks; itself without state, so that :func:`~fedcl_distill.registry.describe` says all of it.

    Attributes:
        gives_target: what it draws has a target network.
    """

    gives_target: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """The networks of one run."""
