"""Networks close to a given one: parameter perturbation of AccDD (Zhang et al. 2023), a ball as in FedDM."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from fedcl_distill.networks import Network
from fedcl_distill.seeding import generator_for

_DIRECTIONS = 2


def perturbed(network: Network, least: float, most: float, *, seed: int) -> Network:
    """A copy of ``network`` moved along two random directions, by a coefficient of random sign and size each.

    A direction is Gaussian with every filter (or row of a matrix) rescaled to the norm of the network's own filter; it
    leaves parameters of one dimension alone (Li et al. 2018).

    Args:
        least, most: between which sizes of the coefficients are uniformly distributed.
        seed: names directions and coefficients.
    """
    moved = copy.deepcopy(network)
    for number in range(_DIRECTIONS):
        generator = generator_for(seed, "direction", number)
        size, sign = torch.rand(2, generator=generator).tolist()
        coefficient = (least + (most - least) * size) * (1 if sign < 0.5 else -1)
        with torch.no_grad():
            for target, weight in zip(moved.parameters(), network.parameters(), strict=True):
                if weight.ndim > 1:
                    target.add_(_direction(weight, generator), alpha=coefficient)
    return moved


def at_distance(network: Network, radius: float, *, seed: int) -> Network:
    """A copy of ``network`` moved by ``radius``, in the Euclidean norm of all parameters, in a random direction.

    The direction is that of a Gaussian vector, uniform on the sphere.
    """
    moved = copy.deepcopy(network)
    generator = generator_for(seed, "direction")
    noise = [torch.randn(weight.shape, generator=generator) for weight in network.parameters()]
    length = torch.stack([one.double().square().sum() for one in noise]).sum().sqrt()
    with torch.no_grad():
        for weight, one in zip(moved.parameters(), noise, strict=True):
            weight.add_(one.to(weight), alpha=radius / float(length))
    return moved


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian, of the shape of ``weight`` (outputs, …) and with the norms of its filters."""
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    across = tuple(range(1, weight.ndim))
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=across, keepdim=True)
    own: Tensor = torch.linalg.vector_norm(noise, dim=across, keepdim=True)
    return noise * lengths / own.clamp(min=1e-10)
