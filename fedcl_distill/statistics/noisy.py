"""Sums released with noise: how the release divides its precision, and what it guarantees."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.checkpoint import fingerprint, load_checkpoint, restoring, save_checkpoint
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import CheckpointError, DataError, PrivacyError, SettingsError
from fedcl_distill.networks.base import as_device
from fedcl_distill.privacy import (
    MAX_STEPS,
    Guarantee,
    NoiseSource,
    PrivacyBudget,
    PrivacyTarget,
    Release,
    composed,
    discrete_gaussian,
    guarantee_on_grid,
    weakest,
)
from fedcl_distill.settings import Positive, settings
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import (
    FEATURES,
    MOMENTS,
    SAMPLES,
    ClassStatistics,
    Sums,
    class_statistics,
    input_ends,
    radii,
    shapes_of,
)

COUNTS = "counts"
_DEVIATIONS_OF_A_CLASS = 4.0  # a noisy count below so many of its deviations counts as none: 1 in 30,000 by chance


@settings
class Shares:
    """How the one release divides its precision; see :mod:`~fedcl_distill.statistics.sums`.

    The noise of a block falls with the root of its share. Shares of blocks that are there are scaled to add up to 1.

    Attributes:
        features: of the views.
        samples: of mean samples.
        moments: of second moments.
        counts: of class counts.

    Raises:
        SettingsError: on construction, if one is not positive.
    """

    features: Positive = 0.7
    samples: Positive = 0.2
    moments: Positive = 0.08
    counts: Positive = 0.02

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Shares:
        """Read what ``asdict`` gave; it may come from anyone.

        Raises:
            SettingsError: blocks are missing or unknown, or one has no positive number.
        """
        if not isinstance(values, Mapping) or set(values) != {FEATURES, SAMPLES, MOMENTS, COUNTS}:
            raise SettingsError("privacy: shares must name every block, and no other")
        return cls(**values)

    def deviations(self, spec: StatisticsSpec, domain: DataSpec, noise_multiplier: float) -> dict[str, float]:
        """Standard deviation of the noise of each block, in the unit of its sums; "counts" among them.

        Raises:
            SettingsError: as for :func:`~fedcl_distill.statistics.sums.radii`.
        """
        bounds = {**radii(spec, domain), COUNTS: 1.0}
        total = sum(getattr(self, name) for name in bounds)
        return {
            name: noise_multiplier * radius / math.sqrt(getattr(self, name) / total) for name, radius in bounds.items()
        }


@dataclass(frozen=True)
class NoisyStatistics:
    """What is left of statistics once noise is on them: this may be given away, added up and rounded at will.

    Attributes:
        spec, domain: as of :class:`ClassStatistics`; nothing in the domain may have been measured on the data.
        counts: float64 (classes,): noisy, and possibly negative.
        sums: float64 (views, classes, dimensions) by name, noisy.
        shares: how precision was divided.
        guarantee: what holds for each record; None where a part had none.
        variance: of the noise, in that of one release: releases that were added up add up theirs.

    Raises:
        DataError: on construction, if shapes, dtypes or values break the above.
    """

    spec: StatisticsSpec
    domain: DataSpec
    counts: Tensor
    sums: Mapping[str, Tensor]
    shares: Shares
    guarantee: Guarantee | None
    variance: float = 1.0

    def __post_init__(self) -> None:
        expected = shapes_of(self.spec, self.domain)
        if set(self.sums) != set(expected):
            raise DataError(f"noisy statistics hold {sorted(self.sums)[:5]}, expected {sorted(expected)}")
        _check("counts", self.counts, (self.domain.num_classes,))
        for name, (views, dimensions) in expected.items():
            _check(name, self.sums[name], (views, self.domain.num_classes, dimensions))

    def __add__(self, other: NoisyStatistics) -> NoisyStatistics:
        """Of both data together, which may have records in common; see :func:`add_up_noisy`.

        Raises:
            DataError: the two are not sums of the same features of the same kind of data.
        """
        return self._plus(other, composed([self.guarantee, other.guarantee]))

    def _plus(self, other: NoisyStatistics, guarantee: Guarantee | None) -> NoisyStatistics:
        if (self.spec, self.domain, self.shares) != (other.spec, other.domain, other.shares):
            raise DataError("noisy statistics of another specification or kind of data cannot be added")
        return NoisyStatistics(
            self.spec,
            self.domain,
            self.counts + other.counts,
            {name: one + other.sums[name] for name, one in self.sums.items()},
            self.shares,
            guarantee,
            self.variance + other.variance,
        )

    def deviations(self) -> dict[str, float]:
        """Standard deviation of the noise in each block; 0 where there was no noise."""
        if self.guarantee is None:
            return dict.fromkeys((*self.sums, COUNTS), 0.0)
        single = self.shares.deviations(self.spec, self.domain, self.guarantee.deviation)
        return {name: math.sqrt(self.variance) * value for name, value in single.items()}

    def as_statistics(self) -> ClassStatistics:
        """Statistics that could have been exact: counts are whole, means lie where means can lie.

        All of it follows from what was released, and so costs nothing. A class whose count does not stand out from its
        noise counts as absent.
        """
        least = max(1.0, _DEVIATIONS_OF_A_CLASS * self.deviations()[COUNTS])
        counts = torch.where(self.counts >= least, self.counts.round(), 0.0)
        sums = {}
        for name, noisy in self.sums.items():
            means = self._possible(name, noisy / counts.clamp(min=1)[:, None])
            of_name = counts.long().expand(noisy.shape[:2]).clone()
            sums[name] = Sums(of_name, means * of_name[..., None])
        return ClassStatistics(self.spec, self.domain, sums)

    def _possible(self, name: str, means: Tensor) -> Tensor:
        low, high = input_ends(self.domain).double()
        if name == SAMPLES:
            shape = (means.shape[-1] // len(low), 1)
            return means.clamp(low.repeat(shape).T.flatten(), high.repeat(shape).T.flatten())
        most = max_mean(name, self.domain)
        return means.clamp(-most, most)


def release(
    data: LabelledData,
    spec: StatisticsSpec,
    target: PrivacyTarget | None,
    *,
    shares: Shares | None = None,
    noise: NoiseSource | None = None,
    budget: PrivacyBudget | None = None,
    part: str = "",
    device: str | torch.device = "cpu",
) -> NoisyStatistics:
    """Sums of features of ``data``, with noise: a Gaussian mechanism (Dwork et al. 2006), once, for all of it.

    Class counts are part of the same vector, and protected with it. Normalisation, value range and class names are
    taken to be public: see :func:`~fedcl_distill.privacy.publicly_scaled`. So are ``spec`` and its seed.

    Args:
        data: with a public scale.
        spec: of bounded features.
        target: ε and δ; None adds no noise, which guarantees nothing.
        shares: how the release divides its precision.
        noise: where it comes from; None takes the operating system.
        budget: what the data may release; asked before anything is.
        part: names these records there, where other releases are of others (experiences).
        device: where to compute.

    Raises:
        SettingsError: features are not bounded, or a value is out of range; nothing was spent or looked at.
        PrivacyError: the budget does not cover it, or something failed once records were looked at.
        DependencyError: dp-accounting is not installed.
    """
    shares, domain = shares or Shares(), data.spec
    radii(spec, domain)
    if target is None:
        if budget is not None:
            raise SettingsError("a release without noise cannot be paid from a privacy budget")
        return with_noise(class_statistics(data, spec, device=device), None, shares, NoiseSource.fresh())
    source = noise or NoiseSource.fresh()
    release_guarantee(spec, domain, target, shares)  # what is impossible must not be paid for, and sees no record
    if budget is not None:
        spend(budget, data, target, source, release_origin(data, spec, target, shares, device), part)
    with errors_kept_back():
        return with_noise(class_statistics(data, spec, device=device), target, shares, source)


def release_origin(
    data: LabelledData,
    spec: StatisticsSpec,
    target: PrivacyTarget | None,
    shares: Shares,
    device: str | torch.device = "cpu",
    *more: object,
) -> str:
    """Everything that goes into a release but its noise, as a digest: with equal ones, and equal noise, it is the same.

    The device belongs to it, as others add up floats in another order.
    """
    return fingerprint(data, [repr((spec, target, shares)), as_device(device).type, *map(repr, more)])


def spend(
    budget: PrivacyBudget, data: LabelledData, target: PrivacyTarget, source: NoiseSource, origin: str, part: str = ""
) -> None:
    """Write down that ``data`` are about to make the release that ``origin`` describes.

    Raises:
        PrivacyError: the budget does not cover it.
    """
    release = Release(source.name(origin), f"statistics of {data.name}", target.guarantee(1.0).mechanism, part)
    budget.spend(release)


@contextmanager
def errors_kept_back() -> Iterator[None]:
    """Inside, records are looked at. An error there might tell of them, so that all who ask hear the same of each.

    The cause stays with the exception, where those that hold the records see it.

    Raises:
        PrivacyError: something was raised inside.
    """
    try:
        yield
    except Exception as error:
        raise PrivacyError("the release failed; why is kept back, for it may tell of the records") from error


def kept_release(
    path: str | os.PathLike[str],
    origin: str,
    spec: StatisticsSpec,
    domain: DataSpec,
    shares: Shares,
    make: Callable[[], NoisyStatistics],
) -> NoisyStatistics:
    """The release at ``path``, or what ``make`` gives, which is written there, readable by its owner alone.

    A run that is interrupted so goes on with what it has released, and asks its records nothing again.

    Args:
        path: of the file.
        origin: from :func:`release_origin`; the file holds a salted hash of it.
        spec, domain, shares: of the release.
        make: releases.

    Raises:
        CheckpointError: the file is damaged, or holds another release.
        StorageError: it could not be written.
    """
    state = load_checkpoint(path, _KEPT)
    if state is None:
        noisy, salt = make(), secrets.token_hex(32)
        claim = None if noisy.guarantee is None else noisy.guarantee.as_record()
        values = {"counts": noisy.counts, "sums": dict(noisy.sums), "guarantee": claim}
        save_checkpoint(path, _KEPT, {**values, "salt": salt, "seal": _seal(salt, origin)}, secret=True)
        return noisy
    with restoring(path):
        sealed, claim = _seal(state["salt"], origin), state["guarantee"]
        guarantee = None if claim is None else Guarantee.of(claim)
        noisy = NoisyStatistics(spec, domain, state["counts"], state["sums"], shares, guarantee)
    if state["seal"] != sealed:
        raise CheckpointError(
            f"{path} holds another release (of other data, scale, ε, δ, shares or settings); "
            "remove it and the checkpoint beside it to make a new one"
        )
    return noisy


_KEPT = "one private release"


def _seal(salt: str, origin: str) -> str:
    return hashlib.sha256(f"{salt} {origin}".encode()).hexdigest()


def with_noise(
    exact: ClassStatistics, target: PrivacyTarget | None, shares: Shares, source: NoiseSource
) -> NoisyStatistics:
    """``exact`` with the noise that ``target`` asks for; each call is a release, and its noise is its own.

    The noise is named by everything that goes into it: another ε, other shares, another scale or other records get
    other noise from the same ``source``. Only the identical release repeats itself.

    Numbers are rounded to a grid of half a million steps for each deviation of the noise, which is drawn in whole steps
    (:mod:`~fedcl_distill.privacy.noise`): rounding costs some thousandths more noise, and nothing leaks by the
    least bits of floats.
    """
    spec, domain = exact.spec, exact.domain
    values = {**{name: sums.values for name, sums in exact.sums.items()}, COUNTS: exact.class_counts.double()}
    guarantee = None
    if target is not None:
        guarantee = release_guarantee(spec, domain, target, shares, seeded=not source.secret)
        steps = _finest_steps(spec, domain, target, shares)
        spread = shares.deviations(spec, domain, guarantee.deviation)
        source = source.bound_to(repr((spec, domain, target, shares, steps, spread)), values.values())
        values = {name: _on_grid(one, steps[name], spread[name], source, name) for name, one in values.items()}
    counts = values.pop(COUNTS)
    return NoisyStatistics(spec, domain, counts, values, shares, guarantee)


def release_guarantee(
    spec: StatisticsSpec, domain: DataSpec, target: PrivacyTarget, shares: Shares, *, seeded: bool = False
) -> Guarantee:
    """What :func:`with_noise` guarantees.

    Raises:
        SettingsError: features are not bounded, or a value is out of range.
        DependencyError: dp-accounting is not installed.
    """
    steps, units = _finest_steps(spec, domain, target, shares), shares.deviations(spec, domain, 1.0)
    return guarantee_on_grid(target, numbers_of_a_record(spec, domain), units, steps, seeded=seeded)


def numbers_of_a_record(spec: StatisticsSpec, domain: DataSpec) -> dict[str, int]:
    """By block, how many numbers one record can change: those of its class."""
    return {name: math.prod(shape) for name, shape in shapes_of(spec, domain).items()} | {COUNTS: 1}


def max_mean(name: str, domain: DataSpec) -> float:
    """The largest absolute value that a mean in this block can have."""
    largest = float(input_ends(domain).abs().max())
    return {FEATURES: 1.0, SAMPLES: largest, MOMENTS: largest**2, COUNTS: 1.0}[name]


def _finest_steps(spec: StatisticsSpec, domain: DataSpec, target: PrivacyTarget, shares: Shares) -> dict[str, float]:
    """So fine that noise of twice the deviation, more than any bound asks for, can still be drawn."""
    spread = shares.deviations(spec, domain, target.guarantee(1.0).mechanism.noise_multiplier)
    return {name: 2 * deviation / MAX_STEPS for name, deviation in spread.items()}


def _on_grid(values: Tensor, step: float, deviation: float, source: NoiseSource, name: str) -> Tensor:
    noise = discrete_gaussian(source, math.ceil(deviation / step), values.shape, name)
    return ((values / step).round() + noise) * step


def add_up_noisy(many: Sequence[NoisyStatistics], *, disjoint: bool = False) -> NoisyStatistics:
    """The sum of at least one, in the order given.

    Args:
        many: the releases.
        disjoint: whether whoever calls states that no record is in two of them. Then the weakest guarantee holds, else
            all of them add up.

    Raises:
        DataError: there is none, or they cannot be added.
    """
    if not many:
        raise DataError("there are no statistics to add up")
    claims = [one.guarantee for one in many]
    guarantee, total = (weakest if disjoint else composed)(claims), many[0]
    for one in many[1:]:
        total = total._plus(one, guarantee)
    return total


def _check(name: str, values: Any, shape: tuple[int, ...]) -> None:
    if values.dtype != torch.float64 or tuple(values.shape) != shape:
        raise DataError(f"noisy statistics: {name} must be float64 {shape}, got {values.dtype} {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise DataError(f"noisy statistics: {name} hold NaN or infinity")
