"""Sums of features: counts, class sums and second moments, which add up over clients and over time.

They are all that a linear classifier in closed form needs (:mod:`fedcl_distill.features.heads`). Sent once, they give
the same head however samples are divided over clients (Fanì et al. 2024, Fed3R; He et al. 2025, AFL; Legate et al.
2023, FedNCM), without training at a client and without a setting to tune.

Second moments are what costs bytes: a whole matrix has d² values and is often larger than the data that it sums. So
there are several ways to keep them: see :mod:`fedcl_distill.features.storages`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.errors import DataError
from fedcl_distill.seeding import generator_for

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
            rows = compacted(rows)
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


@dataclass(frozen=True, eq=False)
class Sketch(Gram):
    """All second moments of features behind a random projection: ``matrix`` = Σ Px (Px)ᵀ, float64 (k, k).

    Class means are behind the same projection.

    Attributes:
        size: d, of features before it.
        seed: names the projection.
    """

    size: int = 0
    seed: int = 0

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Sketch:
        """Their sum."""
        if not isinstance(other, Sketch) or (self.size, self.seed) != (other.size, other.seed):
            raise DataError("sums behind a projection add up with those behind the same one alone")
        return replace(self, matrix=self.matrix + other.matrix)

    def seen(self, rows: Tensor) -> Tensor:
        """(n, k): float64 (n, d) behind the projection."""
        return rows @ projection(self.size, len(self.matrix), self.seed)

    def lift(self, rows: Tensor) -> Tensor:
        """(n, d): what ``rows`` (n, k), applied to projected features, are when applied to features themselves."""
        return rows @ projection(self.size, len(self.matrix), self.seed).T


@dataclass(frozen=True, eq=False)
class Centres:
    """Cluster centres of each class: what their scatter around the class's mean leaves out is known by its trace.

    Attributes:
        rows: float64 (m, d), in order of class.
        labels: int64 (m,): the class of each.
        counts: float64 (m,): samples that each stands for.
        residual: trace of the scatter around centres.
    """

    rows: Tensor
    labels: Tensor
    counts: Tensor
    residual: float = 0.0

    @property
    def values(self) -> int:
        return self.rows.numel() + 2 * len(self.rows) + 1

    def add(self, other: Second, means: tuple[Tensor, Tensor], counts: tuple[Tensor, Tensor]) -> Centres:
        """All of both."""
        if not isinstance(other, Centres):
            raise DataError("cluster centres add up with cluster centres alone")
        labels = torch.cat([self.labels, other.labels])
        order = labels.argsort(stable=True)
        rows, sizes = torch.cat([self.rows, other.rows]), torch.cat([self.counts, other.counts])
        return Centres(rows[order], labels[order], sizes[order], self.residual + other.residual)

    def factor(self, means: Tensor) -> Factor:
        """The scatter within classes that centres know of, around ``means`` (C, d)."""
        apart = self.counts.sqrt()[:, None] * (self.rows - means[self.labels])
        return Factor(compacted(apart) if len(apart) > apart.shape[1] else apart, self.residual)


@lru_cache(maxsize=4)
def projection(size: int, count: int, seed: int) -> Tensor:
    """float64 (size, count): orthonormal columns in random directions, the same for whoever knows the seed."""
    drawn = torch.randn(size, count, generator=generator_for(seed, "projection"), dtype=torch.float64)
    directions: Tensor = torch.linalg.qr(drawn).Q
    return directions


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
        """Both together; a whole matrix and one of low rank give a whole one.

        Raises:
            DataError: they differ in classes, dimensions, backbone or storage.
        """
        if {type(self.second), type(other.second)} == {Factor, Gram}:
            return self.whole() + other.whole()
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
            DataError: they differ in kind, ``other`` counts more than there is, or they keep directions or centres,
                of which there is no difference: keep each client's sums and add up those that stay.
        """
        self._check_alike(other)
        if isinstance(self.second, Factor | Centres):
            raise DataError("sums of low rank, or of centres, cannot be subtracted; add up the sums of those that stay")
        counts = self.counts - other.counts
        if bool((counts < -1e-6 * (1 + self.counts)).any()):
            raise DataError("more samples are subtracted than there are")
        counts = torch.where(counts < 0.5 * _EPSILON, torch.zeros_like(counts), counts)
        sums = self.means * self.counts[:, None] - other.means * other.counts[:, None]
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=_EPSILON)[:, None], torch.zeros_like(sums))
        second: Second | None = None
        if isinstance(self.second, Gram) and isinstance(other.second, Gram):
            second = replace(self.second, matrix=self.second.matrix - other.second.matrix)
        elif isinstance(self.second, Squares) and isinstance(other.second, Squares):
            second = Squares(self.second.squares - other.second.squares)
        return replace(self, counts=counts, means=means, second=second)

    def whole(self) -> FeatureSums:
        """The same with all second moments as one matrix.

        Raises:
            DataError: means alone say nothing of them.
        """
        return replace(self, second=Gram(second_moments(self)))

    def truncated(self, rank: int) -> FeatureSums:
        """The same with the ``rank`` largest directions of the scatter within classes: a memory that does not grow.

        Raises:
            DataError: means alone say nothing of it.
        """
        scatter = within_scatter(self)
        if isinstance(scatter, Tensor):
            energies, vectors = torch.linalg.eigh(scatter)
            scatter = Factor(energies.clamp(min=0).sqrt()[:, None] * vectors.T)
        cut = truncated(scatter.rows, rank)
        return replace(self, second=Factor(cut.rows, cut.residual + scatter.residual))

    def _check_alike(self, other: FeatureSums) -> None:
        for what in ("class_names", "dimensions", "backbone"):
            if getattr(self, what) != getattr(other, what):
                raise DataError(f"feature sums differ in {what}: {getattr(self, what)!r}, {getattr(other, what)!r}")
        if type(self.second) is not type(other.second):
            raise DataError("feature sums differ in how second moments are kept")


def within_scatter(sums: FeatureSums) -> Tensor | Factor:
    """Σ (x − mean of its class)(x − mean of its class)ᵀ: a float64 (d, d) matrix, or a factor of low rank.

    Raises:
        DataError: means alone say nothing of it, and squares only its diagonal.
    """
    if isinstance(sums.second, Factor):
        return sums.second
    if isinstance(sums.second, Centres):
        return sums.second.factor(sums.means)
    if isinstance(sums.second, Gram):
        return sums.second.matrix - sums.means.T @ (sums.means * sums.counts[:, None])
    if isinstance(sums.second, Squares):
        diagonal = sums.second.squares.sum(0) - (sums.means.square() * sums.counts[:, None]).sum(0)
        return torch.diag(diagonal.clamp(min=0))
    raise DataError("sums that keep class means alone say nothing of the scatter within classes")


def second_moments(sums: FeatureSums) -> Tensor:
    """Σ x xᵀ, float64 (d, d).

    Raises:
        DataError: means alone say nothing of it.
    """
    if isinstance(sums.second, Gram):
        return sums.second.matrix
    between = sums.means.T @ (sums.means * sums.counts[:, None])
    scatter = within_scatter(sums)
    if isinstance(scatter, Factor):
        within = scatter.rows.T @ scatter.rows
        within.diagonal().add_(scatter.floor)
        scatter = within
    return between + scatter


def truncated(centred: Tensor, rank: int) -> Factor:
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


def compacted(rows: Tensor) -> Tensor:
    """At most d rows with the same ``rows.T @ rows``."""
    energies, vectors = torch.linalg.eigh(rows.T @ rows)
    return _signed((energies.clamp(min=0).sqrt()[:, None] * vectors.T).flip(0))


def _signed(rows: Tensor) -> Tensor:
    """Each row with its largest value positive: the sign of a singular vector is no one's choice."""
    if rows.numel() == 0:
        return rows
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)
