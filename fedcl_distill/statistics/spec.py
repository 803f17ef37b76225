"""Which features are summed, and of what data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Draw, NoAugmentation, augmentation_for
from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, ArchitectureLike, Network, default_architecture
from fedcl_distill.parameterizations.base import enlarge
from fedcl_distill.registry import build_with
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Range, settings

MEAN: Literal["mean"] = "mean"
DIRECTION: Literal["direction"] = "direction"
CHARACTERISTIC: Literal["characteristic"] = "characteristic"
BOUNDED = (DIRECTION, CHARACTERISTIC)
"""Kinds of which each number lies in [-1, 1], whatever the sample."""

_MAX_VIEWS = 100_000
_MAX_DIMENSIONS = 100_000
_MAX_MOMENTS = 64
_LONGEST_TEXT = 200
_WIDTH = 32


@settings
class StatisticsSpec:
    """What is summed over a class: features under random networks, and coarse moments of the samples themselves.

    Each view is a random network with one draw of the augmentation, both named by ``seed`` and the number of the view.

    Attributes:
        seed: of everything drawn, in [0, 2**63).
        views: how many, at least 2.
        architecture: of the networks, a registered one, kept as text; None takes a ConvNet for images and an MLP for
            features, of width 32. The classifier on top is not used. Batch norm and dropout do nothing: the networks
            are in evaluation mode and have seen no data.
        kind: "mean" sums embeddings, as DM compares them (Zhao and Bilen 2023, equation 6). "direction" sums the same
            scaled to length 1, so that what one sample adds is bounded. "characteristic" sums
            cosines and sines of random projections of embeddings of length 1 (Rahimi and Recht 2007; compare Wang et
            al. 2025): each lies in [-1, 1], so that what one sample adds is bounded.
        dimensions: numbers a class in each view. Embeddings that are longer are projected to so many by a random
            matrix, which keeps squared distances on average (Johnson and Lindenstrauss 1984); 0 keeps them as they are.
            Characteristic features are an even number of them, half cosines and half sines.
        frequency: standard deviation of the frequencies of characteristic features; larger ones tell finer differences
            apart.
        share: fraction of the samples that each view looks at, in (0, 1]. Which ones follows from what they hold, not
            from where they are: so the sums are the same however the data are divided. It bounds the work.
        moments: images are averaged to so many pixels a side, and the second moments of these are summed, for the
            server's first samples; 0 for none. Feature vectors are taken as they are, if they are no longer than its
            square.
        augment: whether views augment as suits the data (DSA for images).

    Raises:
        SettingsError: on construction, if a value is of the wrong type, out of range or unknown.
    """

    seed: Annotated[int, Range(ge=0, lt=2**63)] = 0
    views: Annotated[int, Range(ge=2, le=_MAX_VIEWS)] = 50
    architecture: ArchitectureLike | None = None
    kind: Literal["mean", "direction", "characteristic"] = MEAN
    dimensions: Annotated[int, Range(ge=0, le=_MAX_DIMENSIONS)] = 512
    frequency: Annotated[float, Range(gt=0, le=1e6)] = 4.0
    share: Annotated[float, Range(gt=0, le=1)] = 1.0
    moments: Annotated[int, Range(ge=0, le=_MAX_MOMENTS)] = 7
    augment: bool = True

    def __post_init__(self) -> None:
        if self.kind == CHARACTERISTIC and (self.dimensions == 0 or self.dimensions % 2):
            raise SettingsError(f"characteristic features need an even number of dimensions, got {self.dimensions}")
        if self.architecture is not None:
            architecture = Architecture.of(self.architecture)
            text = self.architecture if isinstance(self.architecture, str) else architecture.text
            if len(text) > _LONGEST_TEXT:
                raise SettingsError("statistics: architecture must be a short text such as 'convnet:width=32'")
            DEFAULT_NETWORK_LIMITS.check_options(architecture)
            object.__setattr__(self, "architecture", text)

    def architecture_for(self, sample_shape: tuple[int, ...]) -> Architecture:
        """Of the networks that look at samples of this shape."""
        if self.architecture is None:
            return default_architecture(sample_shape, _WIDTH)
        return _architecture(str(self.architecture))

    def settings(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> StatisticsSpec:
        """The inverse of :meth:`settings`; absent fields take their default.

        Raises:
            SettingsError: a field is unknown, or as for the class.
        """
        return build_with("statistics", cls, settings)


@cache
def _architecture(text: str) -> Architecture:
    """Kept, for what trials showed of a network is kept with it."""
    return Architecture.parse(text)


@dataclass(frozen=True)
class FeatureMap:
    """One view: a random network, a draw of the augmentation, and what becomes of embeddings.

    Attributes:
        network: never trained.
        augment: drawn once a class.
        projection: float32 (dimensions, embedding), None where embeddings are kept as they are; the frequencies of
            characteristic features, (dimensions / 2, embedding).
        kind: of the specification.
    """

    network: Network
    augment: Draw
    projection: Tensor | None
    kind: str

    def __call__(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """float32 (n, dimensions), differentiable, of network inputs (n, …) of these ``classes``, int64 (n,)."""
        embeddings = self.network.embed(self.augment(inputs, classes))
        if self.kind == CHARACTERISTIC:
            assert self.projection is not None
            phases = F.normalize(embeddings, dim=1) @ self.projection.T
            return torch.cat([phases.cos(), phases.sin()], dim=1)
        features = embeddings if self.projection is None else embeddings @ self.projection.T
        return F.normalize(features, dim=1) if self.kind == DIRECTION else features


def feature_map(spec: StatisticsSpec, domain: DataSpec, view: int, device: torch.device) -> FeatureMap:
    """The view of this number: the same for all parties.

    Raises:
        SettingsError: the networks or the augmentation do not suit such samples.
    """
    seed = derive_seed(spec.seed, "statistics", view)
    architecture = spec.architecture_for(domain.sample_shape)
    network = architecture.build(domain.sample_shape, domain.num_classes, seed=derive_seed(seed, "network"))
    augmentation = augmentation_for(domain) if spec.augment else NoAugmentation()
    projection = _projection(spec, network.embedding_size, derive_seed(seed, "projection"))
    return FeatureMap(
        network=network.to(device).requires_grad_(False).eval(),
        augment=augmentation.draw(domain.num_classes, domain.sample_shape, generator_for(seed, "augmentation")),
        projection=None if projection is None else projection.to(device),
        kind=spec.kind,
    )


def _projection(spec: StatisticsSpec, embedding: int, seed: int) -> Tensor | None:
    if spec.kind == CHARACTERISTIC:
        return spec.frequency * torch.randn(spec.dimensions // 2, embedding, generator=generator_for(seed))
    if not 0 < spec.dimensions < embedding:
        return None
    return torch.randn(spec.dimensions, embedding, generator=generator_for(seed)) / math.sqrt(spec.dimensions)


def feature_dimensions(spec: StatisticsSpec, domain: DataSpec) -> int:
    """Numbers a class in each view.

    Raises:
        SettingsError: the networks do not suit such samples.
    """
    return _feature_dimensions(spec, domain.sample_shape)


@cache
def _feature_dimensions(spec: StatisticsSpec, sample_shape: tuple[int, ...]) -> int:
    if spec.kind == CHARACTERISTIC:
        return spec.dimensions
    with torch.device("meta"):  # nothing is allocated: a hostile specification may name any size
        embedding = spec.architecture_for(sample_shape).build(sample_shape, 1, seed=0, device="meta").embedding_size
    return min(spec.dimensions, embedding) or embedding


def coarse_shape(spec: StatisticsSpec, domain: DataSpec) -> tuple[int, ...] | None:
    """Shape of what second moments are taken of; None where there are none."""
    shape = domain.sample_shape
    if spec.moments == 0:
        return None
    if len(shape) == 3:
        return (shape[0], min(spec.moments, shape[1]), min(spec.moments, shape[2]))
    return shape if shape[0] <= spec.moments**2 else None


def coarse(inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(n, size): images averaged over even parts, feature vectors as they are."""
    return (F.adaptive_avg_pool2d(inputs, shape[1:]) if len(shape) == 3 else inputs).flatten(1)


def fine(values: Tensor, shape: tuple[int, ...], sample_shape: tuple[int, ...]) -> Tensor:
    """(n, …) samples of ``sample_shape`` that look like the ``coarse`` values, (n, size)."""
    small = values.view(-1, *shape)
    return enlarge(small, sample_shape[1], sample_shape[2]) if len(shape) == 3 else small


def products(values: Tensor) -> Tensor:
    """(n, size · (size + 1) / 2): all products of two of the ``values``, (n, size), each pair once."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1])
    return values[:, first] * values[:, second]


def from_products(pairs: Tensor, size: int) -> Tensor:
    """(size, size) symmetric matrix, the inverse of how :func:`products` orders pairs."""
    first, second = torch.triu_indices(size, size)
    matrix = pairs.new_zeros(size, size)
    matrix[first, second] = pairs
    matrix[second, first] = pairs
    return matrix
