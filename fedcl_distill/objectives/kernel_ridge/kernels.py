"""Kernels of ridge regression: in closed form, or inner products of a network's embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network


class Kernel(Protocol):
    """Split in two, so that the representation of the real side is computed once and serves several steps."""

    @property
    def needs_network(self) -> bool:
        """It looks through a network; else it has a closed form."""
        ...

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        """float (n, size): all that the kernel must know of ``inputs`` (n, …), differentiable."""
        ...

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """float64 (n, m) kernel of represented samples, differentiable; its precision is that of the samples."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


def gram(kernel: Kernel, represented: Tensor) -> Tensor:
    """float64 (n, n), computed in double precision, which solving with it needs."""
    represented = represented.double()
    return kernel.between(represented, represented)


@dataclass(frozen=True)
class NetworkFeatures:
    """``scale`` · ⟨f(x), f(y)⟩ / embedding size + ``bias``, for embeddings f of the view's network.

    With a network trained for a while it is the kernel of FRePo (Zhou et al. 2022); with many random ones
    it estimates their Gaussian-process kernel, where ``scale`` and ``bias`` are the variances of the last layer
    (Loo et al. 2022).
    """

    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.bias < 0:
            raise SettingsError(f"a kernel needs scale > 0 and bias ≥ 0, got {self.scale} and {self.bias}")

    @property
    def needs_network(self) -> bool:
        return True

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        return torch.cat([network.embed(part) for (part,) in chunked(inputs)])

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T).double() * (self.scale / left.shape[1]) + self.bias

    def settings(self) -> dict[str, Any]:
        return {"kernel": "network features", "kernel_scale": self.scale, "kernel_bias": self.bias}


@dataclass(frozen=True)
class FullyConnectedNTK:
    """Neural tangent kernel of an infinitely wide ReLU network (Jacot et al. 2018; Lee et al. 2019).

    In the parametrisation in which a layer maps x to σ_w W x / √(fan in) + σ_b b, with standard Gaussian W and b.

    Attributes:
        depth: hidden layers, each followed by ReLU; 0 is linear.
        weight_std, bias_std: σ_w and σ_b; the defaults are those of KIP (Nguyen et al. 2021).
    """

    depth: int = 2
    weight_std: float = math.sqrt(2)
    bias_std: float = 0.1

    def __post_init__(self) -> None:
        if self.depth < 0 or self.weight_std <= 0 or self.bias_std < 0:
            raise SettingsError("a tangent kernel needs depth ≥ 0, weight_std > 0 and bias_std ≥ 0")

    @property
    def needs_network(self) -> bool:
        return False

    def represent(self, network: Network, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).double()

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        covariance = self._dense(left @ right.T / left.shape[1])
        of_left, of_right = (self._dense(side.square().mean(dim=1)) for side in (left, right))
        tangent = covariance
        for _ in range(self.depth):
            covariance, derivative = relu_covariance(covariance, of_left, of_right)
            covariance = self._dense(covariance)
            tangent = covariance + self.weight_std**2 * tangent * derivative
            # ReLU halves a variance, for it keeps one half of a symmetric distribution.
            of_left, of_right = self._dense(of_left / 2), self._dense(of_right / 2)
        return tangent

    def _dense(self, covariance: Tensor) -> Tensor:
        """Covariance after a layer's linear map."""
        return self.weight_std**2 * covariance + self.bias_std**2

    def settings(self) -> dict[str, Any]:
        return {
            "kernel": "fully connected ntk",
            "kernel_depth": self.depth,
            "kernel_weight_std": self.weight_std,
            "kernel_bias_std": self.bias_std,
        }


def relu_covariance(covariance: Tensor, of_left: Tensor, of_right: Tensor) -> tuple[Tensor, Tensor]:
    """E[ReLU(u) ReLU(v)] and E[ReLU′(u) ReLU′(v)] for centred Gaussian u, v (Cho and Saul 2009).

    Args:
        covariance: float64 (n, m) of u and v.
        of_left, of_right: float64 (n,) and (m,) variances of u and of v.
    """
    product = of_left[:, None] * of_right[None, :]
    gap = product - covariance.square()
    # Equal samples: the angle is 0, where √ and arccos have no finite slope. What they are multiplied with vanishes,
    # so that the gradient without them is the exact one.
    apart = gap > 1e-12 * product
    sine = torch.where(apart, gap, torch.ones_like(gap)).sqrt().where(apart, torch.zeros_like(gap))
    rest = math.pi - torch.atan2(sine, covariance)
    return (sine + rest * covariance) / (2 * math.pi), rest / (2 * math.pi)
