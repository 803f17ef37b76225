"""A network that serves several views and is trained between them, until a new one takes its place."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from fedcl_distill.network_sources.base import Supply
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.problem import Problem


class Episode:
    """The network now in use, a copy of what ``start`` drew for its first view, and how many views it has served."""

    def __init__(self, start: Supply) -> None:
        self._start = start
        self._network: Network | None = None
        self.served = 0

    def network(self, index: int, seed: int) -> Network:
        """The network of view number ``index``; a new one if none is in use."""
        if self._network is None:
            self._network = copy.deepcopy(self._start.draw(index, seed).network).requires_grad_(False)
        return self._network

    def end(self) -> None:
        """Let the next view have a new network."""
        self._network, self.served = None, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        weights = None if self._network is None else weights_on_cpu(self._network)
        return {"served": self.served, "weights": weights, "start": self._start.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._start.restore(state["start"])
        self.end()
        if state["weights"] is not None:
            self.network(0, 0).load_state_dict(state["weights"])
        self.served = int(state["served"])


def network_of(weights: dict[str, Tensor], architecture: Architecture, problem: Problem) -> Network:
    """The constant network that :func:`weights_on_cpu` took ``weights`` from."""
    real = problem.real
    network = architecture.build(real.sample_shape, real.num_classes, seed=0, device=problem.device)
    network.load_state_dict(weights)
    return network.requires_grad_(False)


def weights_on_cpu(network: Network) -> dict[str, Tensor]:
    """All weights by name, copied."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
