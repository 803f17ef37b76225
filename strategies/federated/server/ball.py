"""Weights that stay close to where they were: projection onto a Euclidean ball."""

from __future__ import annotations

import torch

from fedcl_distill.networks import Network


class L2Projection:
    """All weights within ``radius`` of those that ``network`` has now, in the Euclidean norm of all parameters."""

    def __init__(self, network: Network, radius: float) -> None:
        self._network, self._radius = network, radius
        self._middle = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def project(self) -> bool:
        """Move the network's weights to the nearest ones inside; always True, so that training goes on."""
        ways = [p - middle for p, middle in zip(self._network.parameters(), self._middle, strict=True)]
        distance = float(torch.stack([way.double().square().sum() for way in ways]).sum().sqrt())
        if distance > self._radius:
            for p, middle, way in zip(self._network.parameters(), self._middle, ways, strict=True):
                p.copy_(middle + way * (self._radius / distance))
        return True
