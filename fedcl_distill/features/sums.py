"""Sums of features: counts, class sums and second moments, which add up over clients and over time.

They are all that a linear classifier in closed form needs (:mod:`fedcl_distill.features.heads`). Sent once, they give
the same head however samples are divided over clients (Fanì et al. 2024, Fed3R; He et al. 2025, AFL; Legate et al.
2023, FedNCM), without training at a client and without a setting to tune.

Second moments are what costs bytes: a whole matrix has d² values and is often larger than the data that it sums. So
there are several ways to keep them (:class:`Means`, :class:`LowRank`, :class:`Diagonal`, :class:`Full`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Count, settings

_EPSILON = 1e-12


@runtime_checkable
class Second(Protocol):
    """Second moments of one client, or of many."""

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Second:
        """Both together; ``means`` (C, d) and ``counts`` (C,) are those of this one and of the other."""
        ...

    @property
    def values(self) -> int:
        """How many numbers they are."""
        ...


@dataclass(frozen=True, eq=False)
class Factor:
    """Scatter within classes of low rank: ``rows.T @ rows``, and what was cut off spread over all directions alike.

    Attributes:
        rows: float64 (r, d): singular vectors times their singular values, largest first.
        residual: trace of what was cut off, so that the trace of all the scatter is known.
    """

    rows: Tensor
    residual: float = 0.0

    @property
    def floor(self) -> float:
        """What the rest adds to the scatter along every direction."""
        return self.residual / self.rows.shape[1]

    @property
    def values(self) -> int:
        return self.rows.numel() + 1

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Factor:
        """Scatter adds up, but around one mean of each class: where means differ, that difference is scatter, too.

        For counts n and m, it is n·m/(n+m) times the outer product of the difference (the parallel axis theorem).
        """
        if not isinstance(other, Factor):
            raise DataError("sums of low rank add up with sums of low rank alone")
        shared = (counts[0] > 0) & (counts[1] > 0)
        first, second = counts[0][shared], counts[1][shared]
        weights = (first * second / (first + second)).sqrt()
        apart = weights[:, None] * (means[0][shared] - means[1][shared])
        rows = torch.cat([self.rows, other.rows, apart])
        if len(rows) > rows.shape[1]:
            rows = _compact(rows)
        return Factor(rows, self.residual + other.residual)


@dataclass(frozen=True, eq=False)
class Gram:
    """All second moments: ``matrix`` = Σ x xᵀ, float64 (d, d), over all samples of all classes."""

    matrix: Tensor

    @property
    def values(self) -> int:
        size = len(self.matrix)
        return size * (size + 1) // 2

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Gram:
        """Their sum."""
        if not isinstance(other, Gram):
            raise DataError("whole matrices add up with whole matrices alone")
        return Gram(self.matrix + other.matrix)


@dataclass(frozen=True, eq=False)
class Squares:
    """Sums of squares of each class: ``squares`` = Σ x², float64 (C, d)."""

    squares: Tensor

    @property
    def values(self) -> int:
        return self.squares.numel()

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Squares:
        """Their sum."""
        if not isinstance(other, Squares):
            raise DataError("sums of squares add up with sums of squares alone")
        return Squares(self.squares + other.squares)


@runtime_checkable
class Storage(Protocol):
    """Which second moments are kept."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Second | None:
        """Second moments of float64 (n, d) features with int64 (n,) labels and float64 (n,) weights."""
        ...


STORAGES: Registry[Storage] = Registry("storage of feature sums", "fedcl_distill.feature_storages", Storage)
"""How second moments are kept, by name."""


@STORAGES.register("means")
@settings
class Means:
    """Class means alone (FedNCM, Legate et al. 2023; SimpleCIL, Zhou et al. 2024): the fewest bytes."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> None:
        return None


@STORAGES.register("low-rank")
@settings
class LowRank:
    """The ``rank`` largest directions of the scatter within classes, pooled over classes.

    Attributes:
        rank: vectors that are kept; never more than samples or dimensions.
    """

    rank: Count = 8

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Factor:
        centred = (features - means[labels]) * weights.sqrt()[:, None]
        return _truncated(centred, self.rank)


@STORAGES.register("diagonal")
@settings
class Diagonal:
    """A variance for each class and feature (FedPFT with one component, Beitollahi et al. 2024)."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Squares:
        squares = torch.zeros_like(means)
        return Squares(squares.index_add_(0, labels, features.square() * weights[:, None]))


@STORAGES.register("full")
@settings
class Full:
    """The whole matrix Σ x xᵀ (Fed3R, Fanì et al. 2024; AFL, He et al. 2025; FedCGS, Guan et al. 2025): exact."""

    def second(self, features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Gram:
        return Gram(features.T @ (features * weights[:, None]))


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """What a client says of its features, or a server knows of all clients'.

    Attributes:
        counts: float64 (C,): samples of each class, or the sum of their weights; 0 for an absent class.
        means: float64 (C, d); 0 for an absent class.
        second: second moments, as the storage keeps them; None for means alone.
        class_names: one name a class.
        backbone: fingerprint of what made the features; sums of two backbones do not add up.

    Raises:
        DataError: on construction, if shapes do not fit or values are not finite.

    Example:
        >>> one = measure(torch.eye(3), torch.tensor([0, 1, 1]), ("a", "b"))
        >>> (one + one).counts.tolist()
        [2.0, 4.0]
    """

    counts: Tensor
    means: Tensor
    second: Second | None
    class_names: tuple[str, ...]
    backbone: str = ""

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        if self.counts.shape != (classes,) or self.means.ndim != 2 or len(self.means) != classes:
            raise DataError(
                f"feature sums of {classes} classes need counts ({classes},) and means ({classes}, d), "
                f"got {tuple(self.counts.shape)} and {tuple(self.means.shape)}"
            )
        if not (torch.isfinite(self.counts).all() and torch.isfinite(self.means).all()):
            raise DataError("feature sums hold NaN or infinity")
        if bool((self.counts < 0).any()):
            raise DataError("feature sums hold a negative count")

    @property
    def dimensions(self) -> int:
        """d, the length of a feature vector."""
        return self.means.shape[1]

    @property
    def total(self) -> float:
        """Samples of all classes."""
        return float(self.counts.sum())

    @property
    def values(self) -> int:
        """Numbers that are sent: counts, means of present classes and second moments."""
        present = int((self.counts > 0).sum())
        return len(self.counts) + present * self.dimensions + (0 if self.second is None else self.second.values)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        """Both together.

        Raises:
            DataError: they differ in classes, dimensions, backbone or storage.
        """
        self._check_alike(other)
        counts = self.counts + other.counts
        weights = torch.where(counts > 0, other.counts / counts.clamp(min=_EPSILON), torch.zeros_like(counts))
        means = self.means + weights[:, None] * (other.means - self.means)
        second = self.second
        if second is not None and other.second is not None:
            second = second.add(other.second, (self.means, other.means), (self.counts, other.counts))
        return replace(self, counts=counts, means=means, second=second)

    def __sub__(self, other: FeatureSums) -> FeatureSums:
        """Without ``other``: a client that leaves takes its samples along, exactly (unlearning).

        Raises:
            DataError: they differ in kind, ``other`` counts more than there is, or sums are of low rank: a sum of
                truncated scatters is truncated no further, so keep each client's sums and add up those that stay.
        """
        self._check_alike(other)
        if isinstance(self.second, Factor):
            raise DataError("sums of low rank cannot be subtracted; add up the sums of those that stay")
        counts = self.counts - other.counts
        if bool((counts < -1e-6 * (1 + self.counts)).any()):
            raise DataError("more samples are subtracted than there are")
        counts = torch.where(counts < 0.5 * _EPSILON, torch.zeros_like(counts), counts)
        sums = self.means * self.counts[:, None] - other.means * other.counts[:, None]
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=_EPSILON)[:, None], torch.zeros_like(sums))
        second: Second | None = None
        if isinstance(self.second, Gram) and isinstance(other.second, Gram):
            second = Gram(self.second.matrix - other.second.matrix)
        elif isinstance(self.second, Squares) and isinstance(other.second, Squares):
            second = Squares(self.second.squares - other.second.squares)
        return replace(self, counts=counts, means=means, second=second)

    def _check_alike(self, other: FeatureSums) -> None:
        for what in ("class_names", "dimensions", "backbone"):
            if getattr(self, what) != getattr(other, what):
                raise DataError(f"feature sums differ in {what}: {getattr(self, what)!r}, {getattr(other, what)!r}")
        if type(self.second) is not type(other.second):
            raise DataError("feature sums differ in how second moments are kept")


def measure(
    features: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    storage: Storage | str = "full",
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
    second = STORAGES.build(storage).second(features, labels, each, means)
    return FeatureSums(counts, means, second, tuple(class_names), backbone)


def measure_data(data: LabelledData, storage: Storage | str = "full", *, backbone: str = "") -> FeatureSums:
    """:func:`measure` of feature vectors in unit values."""
    if data.is_image:
        raise DataError(f"{data.name} holds images; put them through a backbone first")
    return measure(data.unit(), data.labels, data.class_names, storage, backbone=backbone)


def within_scatter(sums: FeatureSums) -> Tensor | Factor:
    """Σ (x − mean of its class)(x − mean of its class)ᵀ: a float64 (d, d) matrix, or a factor of low rank.

    Raises:
        DataError: means alone say nothing of it, and squares only its diagonal.
    """
    if isinstance(sums.second, Factor):
        return sums.second
    if isinstance(sums.second, Gram):
        return sums.second.matrix - sums.means.T @ (sums.means * sums.counts[:, None])
    if isinstance(sums.second, Squares):
        diagonal = sums.second.squares.sum(0) - (sums.means.square() * sums.counts[:, None]).sum(0)
        return torch.diag(diagonal.clamp(min=0))
    raise DataError("sums that keep class means alone say nothing of the scatter within classes")


def _truncated(centred: Tensor, rank: int) -> Factor:
    """The largest directions of (n, d) deviations, and what is left as a multiple of the identity."""
    count, dimensions = centred.shape
    # The smaller of both Gram matrices has all that is needed; an SVD of the whole takes ten times as long.
    if count <= dimensions:
        energies, vectors = torch.linalg.eigh(centred @ centred.T)
        rows = vectors.T @ centred
    else:
        energies, vectors = torch.linalg.eigh(centred.T @ centred)
        rows = energies.clamp(min=0).sqrt()[:, None] * vectors.T
    kept = rows[torch.argsort(energies, descending=True)[: min(rank, dimensions)]]
    residual = float(centred.square().sum() - kept.square().sum())
    return Factor(_signed(kept), max(0.0, residual))


def _compact(rows: Tensor) -> Tensor:
    """At most d rows with the same ``rows.T @ rows``."""
    energies, vectors = torch.linalg.eigh(rows.T @ rows)
    return _signed((energies.clamp(min=0).sqrt()[:, None] * vectors.T).flip(0))


def _signed(rows: Tensor) -> Tensor:
    """Each row with its largest value positive: the sign of a singular vector is no one's choice."""
    if rows.numel() == 0:
        return rows
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
