"""Private statistics as whole numbers of a fixed width: each party adds a share of the noise, and none adds all of it.

Under secure aggregation the server sees the total alone. So it is enough that the *total* has the noise of one release:
of ``fewest`` parties, without which no total is opened, each adds a part of its variance (Dwork et al. 2006; Kairouz,
Liu and Steinke 2021). Sums of whole noise are whole noise again, up to exp(-100) and far less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.privacy import (
    MAX_STEPS,
    Guarantee,
    NoiseSource,
    PrivacyTarget,
    discrete_gaussian,
    guarantee_on_grid,
)
from fedcl_distill.settings import check_integer
from fedcl_distill.statistics.fixed_point import WORD_DTYPES, Words
from fedcl_distill.statistics.noisy import COUNTS, NoisyStatistics, Shares, max_mean, numbers_of_a_record
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import ClassStatistics, shapes_of

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
