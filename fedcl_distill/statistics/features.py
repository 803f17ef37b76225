"""Features of samples: under the network of a view, and of the samples themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Draw, NoAugmentation, augmentation_for
from fedcl_distill.networks import Network
from fedcl_distill.parameterizations.resampling import enlarge
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.spec import CHARACTERISTIC, DIRECTION, StatisticsSpec


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


def feature_map(spec: StatisticsSpec, domain: Domain, view: int, device: torch.device) -> FeatureMap:
    """The view of this number: the same for all parties.

    Raises:
        SettingsError: the networks or the augmentation do not suit such samples.
    """
    seed = derive_seed(spec.seed, "statistics", view)
    architecture = spec.architecture_for(domain.sample_shape)
    network = architecture.build(domain.sample_shape, domain.num_classes, seed=derive_seed(seed, "network"))
    nothing = domain.blank([0] * domain.num_classes)
    augmentation = augmentation_for(nothing) if spec.augment else NoAugmentation()
    projection = _projection(spec, network.embedding_size, derive_seed(seed, "projection"))
    return FeatureMap(
        network=network.to(device).requires_grad_(False),
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


def feature_dimensions(spec: StatisticsSpec, domain: Domain) -> int:
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


def coarse_shape(spec: StatisticsSpec, domain: Domain) -> tuple[int, ...] | None:
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
