"""What is kept of second moments, by name: from class means alone to the whole matrix.

A storage says which :class:`~fedcl_distill.features.sums.Second` becomes of features; :func:`measure` sums them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.features.codec import encoded_size, row_bytes
from fedcl_distill.features.sums import (
    Centres,
    Factor,
    FeatureSums,
    Gram,
    Second,
    Sketch,
    Squares,
    projection,
    truncated,
)
from fedcl_distill.registry import Plain, Registry
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import k_means, squared_distances
from fedcl_distill.settings import Count, Natural, settings
from fedcl_distill.synthetic.quantise import Bits

_ITERATIONS = 50  # of k-means
_EPSILON = 1e-12


class Storage(ABC):
    """Which second moments are kept."""

    @abstractmethod
    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Second | None:
        """Second moments of float64 (n, d) features with int64 (n,) labels, float64 (n,) weights and (C, d) means."""


STORAGES: Registry[Storage] = Registry("storage of feature sums", "fedcl_distill.feature_storages", Storage)
"""How second moments are kept, by name."""


@STORAGES.register("means")
@settings
class Means(Storage):
    """Class means alone (FedNCM, Legate et al. 2023; SimpleCIL, Zhou et al. 2024): the fewest bytes."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> None:
        return None


@STORAGES.register("low-rank")
@settings
class LowRank(Storage):
    """The ``rank`` largest directions of the scatter within classes, pooled over classes.

    Attributes:
        rank: vectors that are kept; never more than samples or dimensions.
    """

    rank: Count = 8

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Factor:
        centred = (features - means[labels]) * weights.sqrt()[:, None]
        return truncated(centred, self.rank)


@STORAGES.register("diagonal")
@settings
class Diagonal(Storage):
    """A variance for each class and feature (FedPFT with one component, Beitollahi et al. 2024)."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Squares:
        squares = torch.zeros_like(means)
        return Squares(squares.index_add_(0, labels, features.square() * weights[:, None]))


@STORAGES.register("full")
@settings
class Full(Storage):
    """The whole matrix Σ x xᵀ (Fed3R, Fanì et al. 2024; AFL, He et al. 2025; FedCGS, Guan et al. 2025): exact."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Gram:
        return Gram(features.T @ (features * weights[:, None]))


@STORAGES.register("projected")
@settings
class Projected(Storage):
    """Means and the whole matrix of features behind a random projection that all share.

    Of orthonormal directions, so that unit vectors stay within the unit ball; adds up as whole matrices do, and a
    head that was fitted to it reads features as they are.

    Attributes:
        dimensions: k, that are left; below d.
        seed: names the projection.
    """

    dimensions: Count = 256
    seed: Natural = 0

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Sketch:
        size = features.shape[1]
        if self.dimensions >= size:
            raise DataError(f"features of {size} dimensions cannot be projected to {self.dimensions}")
        seen = features @ projection(size, self.dimensions, self.seed)
        return Sketch(seen.T @ (seen * weights[:, None]), size, self.seed)


@STORAGES.register("centres")
@settings
class ClusterCentres(Storage):
    """Centres of each class by k-means, with how many samples each stands for.

    Attributes:
        per_class: centres of a class; fewer where it has fewer samples.
        seed: names the samples that Lloyd's algorithm starts from.
    """

    per_class: Count = 5
    seed: Natural = 0

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Centres:
        rows, classes, counts, residual = [], [], [], 0.0
        for label in torch.nonzero(torch.bincount(labels)).flatten().tolist():
            own, share = features[labels == label], weights[labels == label]
            order = torch.randperm(len(own), generator=generator_for(self.seed, "centres", label))
            start = own[order[: self.per_class]]
            nearest = squared_distances(own, k_means(own, start, _ITERATIONS)).argmin(dim=1)
            sizes = torch.zeros(len(start), dtype=torch.float64).index_add_(0, nearest, share)
            sums = torch.zeros_like(start).index_add_(0, nearest, own * share[:, None])
            centres = sums / sizes.clamp(min=_EPSILON)[:, None]
            residual += float((share * (own - centres[nearest]).square().sum(1)).sum())
            kept = sizes > 0
            rows.append(centres[kept])
            counts.append(sizes[kept])
            classes.append(torch.full((int(kept.sum()),), label))
        if not rows:
            return Centres(features[:0], labels, weights)
        return Centres(torch.cat(rows), torch.cat(classes), torch.cat(counts), residual)


def fewer_centres(sums: FeatureSums, storage: ClusterCentres) -> FeatureSums:
    """``sums`` of cluster centres with no more of each class than ``storage`` keeps: centres of centres.

    Class means, counts and the trace of the scatter stay.

    Raises:
        DataError: the sums are of another storage.
    """
    centres = sums.second
    if not isinstance(centres, Centres):
        raise DataError("only cluster centres can become fewer")
    labels, most = centres.labels, torch.bincount(centres.labels, minlength=1).max()
    if most <= storage.per_class:
        return sums
    fewer = storage.second(centres.rows, labels, centres.counts, sums.means)
    return replace(sums, second=replace(fewer, residual=fewer.residual + centres.residual))


@STORAGES.register("within")
@settings
class Within(Storage):
    """What suits a byte budget, and never takes more than the features themselves would.

    The whole matrix where it fits; else as many directions of the scatter as fit beside the class means. Both add up:
    clients of different size send different ones.

    Attributes:
        budget: bytes of the encoded sums, without the counts of classes that are absent.
        bits: of class means, and of directions.
        matrix_bits: of a whole matrix.

    Raises:
        SettingsError: from :meth:`second`, if the budget does not hold the class means.
    """

    budget: Count
    bits: Bits = 4
    matrix_bits: Literal[8, 16, 32] = 8

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Second:
        present, size = int((torch.bincount(labels) > 0).sum()), features.shape[1]
        room = min(self.budget, row_bytes(size, self.bits) * len(features) + encoded_size(len(means), 0))
        if encoded_size(len(means), size, Gram, self.bits, self.matrix_bits, present=present) <= room:
            return Full().second(features, labels, weights, means)
        least = encoded_size(len(means), size, Factor, self.bits, self.bits, present=present)
        if least > self.budget:
            raise SettingsError(
                f"{self.budget:,} bytes do not hold the means of {present} classes in {self.bits} bits: {least:,} bytes"
            )
        rank = max(0, room - least) // row_bytes(size, self.bits)
        return truncated((features - means[labels]) * weights.sqrt()[:, None], rank)


def measure(
    features: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    storage: Storage | Plain = "full",
    *,
    weights: Tensor | None = None,
    backbone: str = "",
) -> FeatureSums:
    """The sums of labelled features.

    Args:
        features: float (n, d).
        labels: int64 (n,) classes.
        class_names: one name a class.
        storage: which second moments are kept: "means", "low-rank:rank=8", "diagonal" or "full".
        weights: float (n,), positive: how many samples each one stands for; None counts each once.
        backbone: fingerprint of what made the features.

    Raises:
        DataError: shapes do not fit, or values are not finite.
    """
    storage = STORAGES.build(storage)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise DataError(f"features must be (n, d) with (n,) labels, got {tuple(features.shape)}, {tuple(labels.shape)}")
    features = features.double()
    if not torch.isfinite(features).all():
        raise DataError("features hold NaN or infinity")
    each = torch.ones(len(features), dtype=torch.float64) if weights is None else weights.double()
    if each.shape != (len(features),) or bool((each <= 0).any()):
        raise DataError(f"{len(features)} features need as many positive weights")
    classes = len(class_names)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"labels span [{int(labels.min())}, {int(labels.max())}], expected [0, {classes - 1}]")
    counts = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, each)
    sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, features * each[:, None])
    means = sums / counts.clamp(min=_EPSILON)[:, None]
    second = storage.second(features, labels, each, means)
    if isinstance(second, Sketch):
        means = second.seen(means)
    return FeatureSums(counts, means, second, tuple(class_names), backbone)


def measure_data(data: LabelledData, storage: Storage | Plain = "full") -> FeatureSums:
    """:func:`measure` of feature vectors in unit values, of the backbone that made them."""
    if data.is_image:
        raise DataError(f"{data.name} holds images; put them through a backbone first")
    return measure(data.unit(), data.labels, data.class_names, storage, backbone=data.spec.backbone)
