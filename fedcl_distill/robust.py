"""What a few outliers among many clients cannot move far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import default_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Fraction, OpenFraction, settings
from fedcl_distill.synthetic import SyntheticSet

Centre = Callable[[Tensor, Tensor], Tensor]

_TRIM = 0.3
_ITERATIONS = 200
_TOLERANCE = 1e-6  # relative movement at which iterations end
_TIE = 1e-9  # relative: rounding of summed weights must not decide on which side of one half they are


def weighted_mean(points: Tensor, weights: Tensor) -> Tensor:
    """Σ wᵢ xᵢ / Σ wᵢ."""
    return weights @ points / weights.sum()


def geometric_median(points: Tensor, weights: Tensor) -> Tensor:
    """The point of least Σ wᵢ ‖x − xᵢ‖.

    Where one of the points is it (Kuhn 1973), it is found at once; else by Weiszfeld's iteration (1937), in the form of
    Vardi and Zhang (2000), which does not get stuck at a point. Where every place of a line is a median, as between two
    points of equal weight, it is one near the mean.
    """
    points, weights = points[weights > 0], weights[weights > 0]
    centre = weighted_mean(points, weights)
    spread = (points - centre).norm(dim=1).max()
    if spread == 0:
        return centre
    best = _point_that_is_median(points, weights)
    if best is not None:
        return best
    for _ in range(_ITERATIONS):
        moved = _weiszfeld_step(points, weights, centre, smallest=_TOLERANCE * spread)
        if (moved - centre).norm() <= _TOLERANCE * spread:
            return moved
        centre = moved
    return centre


def coordinate_median(points: Tensor, weights: Tensor) -> Tensor:
    """The weighted median of each coordinate; half way between two where both are."""
    ordered, order = points.sort(dim=0)
    share = weights[order].cumsum(dim=0) / weights.sum()
    low = ordered.gather(0, (share < 0.5 - _TIE).sum(dim=0, keepdim=True).clamp(max=len(points) - 1))
    high = ordered.gather(0, (share < 0.5 + _TIE).sum(dim=0, keepdim=True).clamp(max=len(points) - 1))
    return ((low + high) / 2).squeeze(0)


def trimmed_mean(points: Tensor, weights: Tensor, trim: float = _TRIM) -> Tensor:
    """The mean of each coordinate without the share ``trim``, in [0, 0.5), of the weight on either side.

    As Yin et al. (2018) average models. A point on the border counts with the part of its weight that is left.
    """
    ordered, order = points.sort(dim=0)
    ends = weights[order].cumsum(dim=0) / weights.sum()
    starts = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    left = (ends.clamp(trim, 1 - trim) - starts.clamp(trim, 1 - trim)) / (1 - 2 * trim)
    return (left * ordered).sum(dim=0)


CENTRES: dict[str, Centre] = {
    "mean": weighted_mean,
    "geometric-median": geometric_median,
    "median": coordinate_median,
    "trimmed-mean": trimmed_mean,
}


def _point_that_is_median(points: Tensor, weights: Tensor) -> Tensor | None:
    """The point that all others together pull at with less than its own weight, if there is one."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    pulls = torch.where(distances > 0, weights / distances.clamp(min=torch.finfo(distances.dtype).tiny), 0.0)
    forces = (pulls @ points - pulls.sum(dim=1, keepdim=True) * points).norm(dim=1)
    held = ((distances == 0) * weights).sum(dim=1)
    is_median = forces < held * (1 - _TOLERANCE)
    return points[int(is_median.int().argmax())] if is_median.any() else None


def _weiszfeld_step(points: Tensor, weights: Tensor, centre: Tensor, smallest: Tensor) -> Tensor:
    distances = (points - centre).norm(dim=1)
    here = distances <= smallest
    pulls = torch.where(here, 0.0, weights / distances.clamp(min=smallest))
    if pulls.sum() == 0:
        return centre
    target = pulls @ points / pulls.sum()
    held = weights[here].sum()
    if held == 0:
        return target
    force = ((points - centre) * pulls[:, None]).sum(dim=0).norm()
    stay = 1.0 if force <= held else float(held / force)
    return (1 - stay) * target + stay * centre


def chance_of_at_most(count: int, chances: Tensor) -> float:
    """The probability that at most ``count`` of independent events happen; ``chances`` are theirs, float64 (n,).

    The distribution function of Poisson's binomial distribution, exactly, by adding one event after the other.
    """
    found = torch.zeros(len(chances) + 1, dtype=torch.float64)
    found[0] = 1
    for chance in chances.tolist():
        found[1:] = found[1:] * (1 - chance) + found[:-1].clone() * chance
        found[0] *= 1 - chance
    return float(found[: count + 1].sum())


def check_share(share: float) -> float:
    """``share``, the most that one party may count for.

    Raises:
        SettingsError: it is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise SettingsError(f"the most that one client may count for must be in (0, 1], got {share}")
    return share


def capped(weights: Tensor, share: float) -> Tensor:
    """float64 (n,): ``weights`` (n,), not negative, where none is above ``share``, in (0, 1], of the new total.

    Those that are get cut to it; nothing else changes, and nothing more is cut than must be. Where too few parties
    have weight for anyone to keep below the share (k ≤ 1 / share), all of these get the smallest of their weights,
    which is as even as it can be.

    Raises:
        SettingsError: the share is out of range.
    """
    check_share(share)
    weights = weights.double()
    present = int((weights > 0).sum())
    if present == 0 or share == 1:
        return weights
    if present * share <= 1:
        return torch.where(weights > 0, weights[weights > 0].min(), 0.0)
    ordered = weights.sort(descending=True).values
    rests = ordered.flip(0).cumsum(dim=0).flip(0)  # of all but the first k
    for count in range(present):
        level = share * rests[count] / (1 - count * share)  # what k that are cut may have: share · (k · level + rest)
        if count * share < 1 and ordered[count] <= level * (1 + 1e-12):
            return weights.clamp(max=float(level)) if count else weights
    return weights.clamp(max=float(ordered[present - 1]))


@dataclass(frozen=True)
class Drop:
    """Samples of one set that are not used.

    Attributes:
        label: their class; None where the whole set is dropped.
        samples: how many.
        reason: why, in one line.
    """

    label: int | None
    samples: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """On one set.

    Attributes:
        kept: bool (n,): which of its decoded samples are used.
        drops: what is not used, and why.
    """

    kept: Tensor
    drops: tuple[Drop, ...] = ()


class Judge(Protocol):
    """Says which samples of many sets are used."""

    def judge(self, sets: Sequence[SyntheticSet], *, seed: int, device: str = "cpu") -> list[Verdict]:
        """One verdict for each of ``sets``, which have the same classes, shape and normalisation."""
        ...


_RANGE = (0.2, 0.95)  # of the agreement that is expected
_MAJORITY = 3  # parties, or holders of a class, of whom one can be outvoted


@settings
class Agreement:
    """Drops what the others disagree with.

    Attributes:
        tolerance: in [0, 1]: a party, or a class of one, is dropped where its samples agree with the others less often
            than so many times what is usual for their classes,
        significance, class_significance: in (0, 1), and where that is less probable than this by chance: of a party,
            and of one class of one, which is less to lose and holds fewer samples to tell by.
        networks, width: random networks that span the feature space, and their width.
        dimensions: of the space; no more than the largest principal components.
        shrinkage: in (0, 1): how much of a sphere there is in the covariance.
        secret: names the random networks beside the run's seed. Nodes are told the seed; who wants to surprise them
            takes a number that they do not know.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    tolerance: Fraction = 0.75
    significance: OpenFraction = 1e-3
    class_significance: OpenFraction = 1e-2
    networks: Count = 2
    width: Count = 32
    dimensions: Count = 200
    shrinkage: OpenFraction = 0.1
    secret: int = 0

    @torch.no_grad()
    def judge(self, sets: Sequence[SyntheticSet], *, seed: int, device: str = "cpu") -> list[Verdict]:
        """One verdict for each of ``sets``, whose soft labels count for their most probable class.

        A class that a single party holds is nobody else's to judge: its samples are kept with their party. So is a
        class of two, but what they say of each other counts for the party as a whole.
        """
        owners = torch.repeat_interleave(torch.arange(len(sets)), torch.tensor([len(one) for one in sets]))
        labels = torch.cat([one.hard_labels for one in sets])
        points = self._principal(self._embed(torch.cat([one.inputs() for one in sets]), sets[0], seed, device))
        court = _Court(points, owners, labels, sets[0].num_classes, self)
        court.drop_parties()
        court.drop_classes(sets[0].class_names)
        return [Verdict(court.kept[owners == party], tuple(court.drops[party])) for party in range(len(sets))]

    def _embed(self, inputs: Tensor, like: SyntheticSet, seed: int, device: str) -> Tensor:
        """float64 (n, d): embeddings under all networks, side by side."""
        architecture = default_architecture(like.sample_shape, self.width)
        found = []
        for number in range(self.networks):
            own = derive_seed(seed, "agreement", self.secret, number)
            network = architecture.build(like.sample_shape, like.num_classes, seed=own, device=device).eval()
            found.append(torch.cat([network.embed(part.to(device)).cpu() for (part,) in micro_batches(inputs)]))
        return torch.cat(found, dim=1).double()

    def _principal(self, embeddings: Tensor) -> Tensor:
        centred = embeddings - embeddings.mean(dim=0)
        _, directions = torch.linalg.eigh(centred.T @ centred)
        principal: Tensor = centred @ directions[:, -self.dimensions :]
        return principal


class _Court:
    """Samples, whose they are, and which of them are still believed."""

    def __init__(self, points: Tensor, owners: Tensor, labels: Tensor, classes: int, rules: Agreement) -> None:
        self.points, self.owners, self.labels, self.classes, self.rules = points, owners, labels, classes, rules
        self.parties = int(owners.max()) + 1
        self.kept = torch.ones(len(points), dtype=torch.bool)
        self.drops: list[list[Drop]] = [[] for _ in range(self.parties)]

    def drop_parties(self) -> None:
        """Drop whole parties, the worst first, until all that are left agree; two of them outvote nobody."""
        while len(self.owners[self.kept].bincount().nonzero()) >= _MAJORITY:
            agrees, known = self._agreement()
            usual = self._usual(agrees, known)
            failed = []
            for party in range(self.parties):
                rows = known & (self.owners == party)
                seen, expected = int(agrees[rows].sum()), usual[self.labels[rows]]
                if self._fails(seen, expected, self.rules.significance):
                    failed.append((seen / float(expected.sum()), party, seen, expected))
            if not failed:
                return
            _, party, seen, expected = min(failed, key=lambda one: one[:2])
            rows = self.kept & (self.owners == party)
            self.drops[party].append(Drop(None, int(rows.sum()), _reason(seen, expected)))
            self.kept &= ~rows

    def drop_classes(self, names: Sequence[str]) -> None:
        """Drop classes of a party that disagree; two holders of a class outvote nobody."""
        agrees, known = self._agreement()
        known &= (self._class_means(self.points)[1] > 0).sum(dim=0)[self.labels] >= _MAJORITY
        usual = self._usual(agrees, known)
        for party in range(self.parties):
            for label in range(self.classes):
                rows = known & (self.owners == party) & (self.labels == label)
                seen, expected = int(agrees[rows].sum()), usual[self.labels[rows]]
                if self._fails(seen, expected, self.rules.class_significance):
                    reason = f"class {names[label]!r}: {_reason(seen, expected)}"
                    self.drops[party].append(Drop(label, int(rows.sum()), reason))
                    self.kept &= ~rows

    def _fails(self, seen: int, expected: Tensor, significance: float) -> bool:
        if len(expected) == 0 or seen >= self.rules.tolerance * float(expected.sum()):
            return False
        return chance_of_at_most(seen, expected) < significance

    def _agreement(self) -> tuple[Tensor, Tensor]:
        """bool (n,) each: samples whose nearest centre is their class's, and those that are kept and can be told."""
        points = self._whitened()
        means, counts = self._class_means(points)
        agrees, known = torch.zeros_like(self.kept), torch.zeros_like(self.kept)
        for party in range(self.parties):
            rows = torch.nonzero(self.kept & (self.owners == party)).flatten()
            others = counts.clone()
            others[party] = 0
            told = torch.nonzero(others.sum(dim=0) > 0).flatten()
            if len(rows) == 0 or len(told) < 2:
                continue
            centres = torch.stack([geometric_median(means[:, label], others[:, label]) for label in told.tolist()])
            found = told[torch.cdist(points[rows], centres).argmin(dim=1)]
            agrees[rows] = found == self.labels[rows]
            known[rows] = torch.isin(self.labels[rows], told)
        return agrees, known

    def _class_means(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """float64 (parties, classes, d) and (parties, classes): means of kept samples, and how many there are."""
        groups = (self.owners * self.classes + self.labels)[self.kept]
        counts = torch.bincount(groups, minlength=self.parties * self.classes).double()
        sums = points.new_zeros(len(counts), points.shape[1]).index_add_(0, groups, points[self.kept])
        shape = (self.parties, self.classes)
        return (sums / counts.clamp(min=1)[:, None]).view(*shape, -1), counts.view(shape)

    def _whitened(self) -> Tensor:
        means, counts = self._class_means(self.points)
        inner = (self.points - means[self.owners, self.labels])[self.kept]
        covariance = inner.T @ inner / max(1.0, len(inner) - float((counts > 0).sum()))
        sphere = covariance.diagonal().mean().clamp(min=1e-12)
        eye = torch.eye(len(covariance), dtype=covariance.dtype)
        covariance = (1 - self.rules.shrinkage) * covariance + self.rules.shrinkage * sphere * eye
        white: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), self.points.T, upper=False).T
        return white

    def _usual(self, agrees: Tensor, known: Tensor) -> Tensor:
        """float64 (classes,): how often samples of a class agree, by the median of its parties."""
        shape = (self.parties, self.classes)
        groups = (self.owners * self.classes + self.labels)[known]
        asked = torch.bincount(groups, minlength=shape[0] * shape[1]).view(shape).double()
        right = torch.bincount(groups, weights=agrees[known].double(), minlength=asked.numel()).view(shape)
        overall = _median_rate(right.sum(dim=1), asked.sum(dim=1), otherwise=0.5)
        rates = [_median_rate(r, a, otherwise=overall) for r, a in zip(right.T, asked.T, strict=True)]
        return torch.tensor(rates, dtype=torch.float64).clamp(*_RANGE)


def _median_rate(right: Tensor, asked: Tensor, otherwise: float) -> float:
    held = asked > 0
    if int(held.sum()) < _MAJORITY:
        return otherwise
    return float((right[held] / asked[held]).median())


def _reason(seen: int, expected: Tensor) -> str:
    return f"{seen} of {len(expected)} samples agree with the other sets, {float(expected.sum()):.1f} are usual"


__all__ = [
    "CENTRES",
    "Agreement",
    "Drop",
    "Verdict",
    "capped",
    "check_share",
    "coordinate_median",
    "geometric_median",
    "trimmed_mean",
    "weighted_mean",
]
