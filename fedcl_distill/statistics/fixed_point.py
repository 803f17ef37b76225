"""Sums, plain and with noise, as words of fixed width that add up without rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.privacy import (
    MAX_STEPS,
    Guarantee,
    NoiseSource,
    PrivacyTarget,
    discrete_gaussian,
    guarantee_on_grid,
)
from fedcl_distill.settings import check_integer
from fedcl_distill.statistics.codec import stored_counts
from fedcl_distill.statistics.noisy import COUNTS, NoisyStatistics, Shares, max_mean, numbers_of_a_record
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import SAMPLES, ClassStatistics, Sums, shapes_of

Words = npt.NDArray[np.unsignedinteger[Any]]

WORD_DTYPES: Mapping[int, type[np.unsignedinteger[Any]]] = {16: np.uint16, 32: np.uint32}
_ROUNDING = 1e-3  # relative: what a sum in floats may pass its bound by


@dataclass(frozen=True)
class FixedPoint:
    """How sums become words and words become sums again.

    Words are the counts that travel (see :mod:`layout`), then the sums, kind by kind, each (views, classes, dimensions)
    in rows: counts as they are, a sum in two's complement as the nearest multiple of :meth:`step`.

    Attributes:
        bits: of a word, 16 or 32.
        parties: the most whose words are added.
        max_samples: the most of one class that a single party may hold.
        bounds: the largest absolute mean of each kind of sums.

    Raises:
        SettingsError: on construction, if a number is out of range or a total of counts would not fit into a word.
    """

    bits: int
    parties: int
    max_samples: int
    bounds: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.bits not in WORD_DTYPES:
            raise SettingsError(f"sums in fixed point take 16 or 32 bits a value, got {self.bits}")
        check_integer("parties", self.parties, 1, 2 ** (self.bits - 2))
        check_integer("max_samples", self.max_samples, 1, 2**31)
        if self.parties * self.max_samples >= 2**self.bits:
            raise SettingsError(
                f"{self.parties} parties of up to {self.max_samples} samples a class: their counts may not fit into "
                f"{self.bits} bits; take more bits or fewer max_samples"
            )
        for name, bound in self.bounds.items():
            if type(bound) is not float or not 0 < bound < math.inf:
                raise SettingsError(f"the bound on means of {name} must be finite and positive, got {bound!r}")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Of words: little-endian unsigned integers."""
        return np.dtype(WORD_DTYPES[self.bits]).newbyteorder("<")

    def step(self, name: str) -> float:
        """Of the sums ``name``: so many, each within its bound and rounded by half a step, stay below 2^(bits - 1)."""
        largest = (1 << self.bits - 1) - 1 - self.parties
        return self.parties * self.max_samples * self.bounds[name] / largest

    def size(self, spec: StatisticsSpec, domain: DataSpec) -> int:
        """Words of one party."""
        return sum(math.prod(shape) for _, _, shape in self._pieces(spec, domain))

    def words(self, statistics: ClassStatistics) -> Words:
        """(size,) of :attr:`dtype`: ``statistics``, each sum rounded to its step.

        Raises:
            DataError: a class has more samples, or a mean is larger, than agreed.
        """
        if int(statistics.class_counts.max()) > self.max_samples:
            raise DataError(
                f"there are {int(statistics.class_counts.max())} samples of a class, "
                f"at most {self.max_samples} were agreed on"
            )
        pieces = []
        for name, counts, _ in self._pieces(statistics.spec, statistics.domain):
            sums = statistics.sums[name]
            pieces.append(sums.counts if counts else self._rounded(name, sums))
        # Two's complement: a conversion to unsigned words keeps the lowest bits.
        return np.concatenate([piece.flatten().numpy() for piece in pieces]).astype(self.dtype)

    def total(self, words: Words, spec: StatisticsSpec, domain: DataSpec) -> ClassStatistics:
        """The statistics that a sum of words, modulo 2^bits, says.

        Raises:
            PayloadError: they cannot be: the words are not a sum of what honest parties send.
        """
        if words.dtype != self.dtype or words.shape != (self.size(spec, domain),):
            raise PayloadError(f"expected {self.size(spec, domain)} words of {self.bits} bits, got {words.shape}")
        counts, values, position = dict[str, Tensor](), dict[str, Tensor](), 0
        for name, is_count, shape in self._pieces(spec, domain):
            piece = words[position : position + math.prod(shape)].reshape(shape)
            position += math.prod(shape)
            if is_count:
                counts[name] = torch.from_numpy(piece.astype(np.int64))
            else:
                signed = piece.view(f"<i{self.bits // 8}").astype(np.float64)
                values[name] = torch.from_numpy(signed) * self.step(name)
        try:
            return ClassStatistics(spec, domain, {name: self._sums(name, values[name], counts) for name in values})
        except DataError as error:
            raise PayloadError(f"the total is no sum of statistics: {error}") from error

    def _sums(self, name: str, values: Tensor, counts: Mapping[str, Tensor]) -> Sums:
        """Held to what the counts allow, once it is clear that rounding alone passed it."""
        own = counts.get(name, counts[SAMPLES].expand(len(values), -1)).clone()
        agreed = self.parties * self.max_samples
        if int(own.max()) > agreed:
            raise DataError(f"it counts {int(own.max())} samples of a class, at most {agreed} were agreed on")
        most = (own * self.bounds[name])[..., None]
        if bool((values.abs() > most + self.parties * self.step(name) * (own > 0)[..., None]).any()):
            raise DataError(f"a sum of {name} is larger than its count allows")
        return Sums(own, values.clamp(-most, most))

    def _rounded(self, name: str, sums: Sums) -> Tensor:
        most = (sums.counts * self.bounds[name])[..., None]
        if bool((sums.values.abs() > most * (1 + _ROUNDING)).any()):
            largest = float(sums.means.abs().max())
            raise DataError(f"a mean of {name} is {largest:g}, at most {self.bounds[name]:g} was agreed on")
        return (sums.values.clamp(-most, most) / self.step(name)).round().long()

    def _pieces(self, spec: StatisticsSpec, domain: DataSpec) -> Iterator[tuple[str, bool, tuple[int, ...]]]:
        """The kinds of numbers in order: of which sums, whether they are counts, and in what shape."""
        shapes = shapes_of(spec, domain)
        for name in stored_counts(spec, shapes):
            yield name, True, (shapes[name][0], domain.num_classes)
        for name, (views, dimensions) in shapes.items():
            yield name, False, (views, domain.num_classes, dimensions)


_TAIL = 12.0  # deviations that a total has room for; beyond them it would wrap around, which tells nothing
_MIN_DEVIATION = 16  # steps, of a share: sums of noise in coarser steps are no longer noise of the same kind


@dataclass(frozen=True)
class NoisyFixedPoint:
    """How sums become words with a share of noise, and the total of words a release.

    Words are counts, then sums kind by kind, (views, classes, dimensions) in rows; all in two's complement, as the
    nearest multiples of a step for each kind.

    Attributes:
        bits: of a word, 16 or 32.
        parties: the most whose words are added.
        fewest: of them, whose words alone already have all the noise of the release.
        max_samples: of one class at a single party. What a party has beyond it is cut off, number by number.
        target: ε and δ of the release.
        shares: how it divides its precision.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    bits: int
    parties: int
    fewest: int
    max_samples: int
    target: PrivacyTarget
    shares: Shares

    def __post_init__(self) -> None:
        if self.bits not in WORD_DTYPES:
            raise SettingsError(f"sums in fixed point take 16 or 32 bits a value, got {self.bits}")
        check_integer("parties", self.parties, 1, 2 ** (self.bits - 2))
        check_integer("fewest", self.fewest, 1, self.parties)
        check_integer("max_samples", self.max_samples, 1, 2**31)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Of words: little-endian unsigned integers."""
        return np.dtype(WORD_DTYPES[self.bits]).newbyteorder("<")

    def size(self, spec: StatisticsSpec, domain: DataSpec) -> int:
        """Words of one party."""
        return domain.num_classes * sum(numbers_of_a_record(spec, domain).values())

    def guarantee(self, spec: StatisticsSpec, domain: DataSpec, *, seeded: bool = False) -> Guarantee:
        """Of a total of at least ``fewest`` words.

        Raises:
            SettingsError: features are not bounded, or steps are too coarse for this ε.
            DependencyError: dp-accounting is not installed.
        """
        steps, units = self.steps(spec, domain), self.shares.deviations(spec, domain, 1.0)
        return guarantee_on_grid(self.target, numbers_of_a_record(spec, domain), units, steps, seeded=seeded)

    def steps(self, spec: StatisticsSpec, domain: DataSpec) -> dict[str, float]:
        """By kind: the finest with which a total fits into a word, and a share of noise can be drawn."""
        # Twice the noise that is asked for before rounding: more than guarantee_on_grid admits.
        plain = self.target.guarantee(1.0).mechanism.noise_multiplier
        spread = self.shares.deviations(spec, domain, 2 * plain)
        largest = (1 << self.bits - 1) - 1 - self.parties
        return {
            name: max(self._farthest(name, deviation, domain) / largest, self._share_of(deviation) / MAX_STEPS)
            for name, deviation in spread.items()
        }

    def words(self, exact: ClassStatistics, source: NoiseSource) -> Words:
        """(size,) of :attr:`dtype`: ``exact`` with a share of noise, named by everything that goes into the words.

        Raises:
            SettingsError: as for :meth:`guarantee`.
        """
        spec, domain = exact.spec, exact.domain
        steps, spread = self.steps(spec, domain), self._share_deviations(spec, domain)
        values = {COUNTS: exact.class_counts.double()}
        values |= {name: exact.sums[name].values for name in shapes_of(spec, domain)}
        source, pieces = source.bound_to(repr((self, spec, domain)), values.values()), []
        for name, one in values.items():
            most = self.max_samples * max_mean(name, domain)
            whole = (one.clamp(-most, most) / steps[name]).round().long()
            pieces.append((whole + discrete_gaussian(source, spread[name], one.shape, name)).flatten())
        # Two's complement: a conversion to unsigned words keeps the lowest bits.
        return torch.cat(pieces).numpy().astype(self.dtype)

    def total(self, words: Words, heard: int, spec: StatisticsSpec, domain: DataSpec) -> NoisyStatistics:
        """The release that a sum of the words of ``heard`` parties, modulo 2^bits, says.

        Raises:
            PayloadError: there are not so many words, or fewer parties than a release takes.
        """
        if words.dtype != self.dtype or words.shape != (self.size(spec, domain),):
            raise PayloadError(f"expected {self.size(spec, domain)} words of {self.bits} bits, got {words.shape}")
        if not self.fewest <= heard <= self.parties:
            raise PayloadError(f"a release takes the words of {self.fewest} to {self.parties} parties, got {heard}")
        steps, classes = self.steps(spec, domain), domain.num_classes
        signed = torch.from_numpy(words.view(f"<i{self.bits // 8}").astype(np.float64))
        shapes = {COUNTS: (classes,)} | {
            name: (views, classes, size) for name, (views, size) in shapes_of(spec, domain).items()
        }
        parts = torch.split(signed, [math.prod(shape) for shape in shapes.values()])  # type: ignore[no-untyped-call]
        values = {
            name: part.view(shape) * steps[name] for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        counts = values.pop(COUNTS)
        guarantee = self.guarantee(spec, domain)
        return NoisyStatistics(spec, domain, counts, values, self.shares, guarantee, heard / self.fewest)

    def _share_deviations(self, spec: StatisticsSpec, domain: DataSpec) -> dict[str, int]:
        """Of a party's noise, in whole steps."""
        steps = self.steps(spec, domain)
        spread = self.shares.deviations(spec, domain, self.guarantee(spec, domain).deviation)
        found = {name: math.ceil(self._share_of(one) / steps[name]) for name, one in spread.items()}
        if min(found.values()) < _MIN_DEVIATION:
            raise SettingsError("privacy: a share of the noise is too small beside its step; take more bits")
        return found

    def _share_of(self, deviation: float) -> float:
        return deviation / math.sqrt(self.fewest)

    def _farthest(self, name: str, deviation: float, domain: DataSpec) -> float:
        """The largest total of a number and its noise."""
        noise = _TAIL * deviation * math.sqrt(self.parties / self.fewest)
        return self.parties * self.max_samples * max_mean(name, domain) + noise
