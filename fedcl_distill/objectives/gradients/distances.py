"""How far two gradients of the same weights lie apart, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.linalg import vector_norm

from fedcl_distill.errors import SettingsError


class Distance(Protocol):
    """Compares the gradients of one layer; an objective sums over layers."""

    name: ClassVar[str]

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        """Scalar, differentiable twice in ``synthetic``; both float (outputs, …) of the layer's shape."""
        ...


@dataclass(frozen=True)
class CosineDistance:
    """Σ over output rows of 1 − cosine (Zhao et al. 2021): of directions alone, so of any scale.

    A row without a gradient counts 1; the 1e-6 of the authors' code keeps it finite.
    """

    name: ClassVar[str] = "cosine"

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        real, synthetic = real.flatten(1), synthetic.flatten(1)
        lengths: Tensor = vector_norm(real, dim=1) * vector_norm(synthetic, dim=1)
        cosines = (real * synthetic).sum(dim=1) / (lengths + 1e-6)
        return (1 - cosines).sum()


@dataclass(frozen=True)
class SquaredDistance:
    """Σ of squared differences (Kim et al. 2022, for colour images)."""

    name: ClassVar[str] = "squared"

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        return (real - synthetic).square().sum()


@dataclass(frozen=True)
class AbsoluteDistance:
    """Σ of absolute differences (Kim et al. 2022, for grey images)."""

    name: ClassVar[str] = "absolute"

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        return (real - synthetic).abs().sum()


_BY_NAME: dict[str, Distance] = {one.name: one for one in (CosineDistance(), SquaredDistance(), AbsoluteDistance())}


def as_distance(value: Distance | str) -> Distance:
    """Read cosine, squared or absolute.

    Raises:
        SettingsError: the name is unknown.
    """
    if not isinstance(value, str):
        return value
    if value not in _BY_NAME:
        raise SettingsError(f"unknown distance {value!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[value]
