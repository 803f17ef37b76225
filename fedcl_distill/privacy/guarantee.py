"""What is guaranteed of a release, in a form that travels with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedcl_distill.errors import PayloadError, SettingsError

KEY = "privacy"
"""Where provenance holds a guarantee."""

UNIT, NEIGHBOURS = "record", "add or remove one"
_MOST_QUERIES = 10**9


@dataclass(frozen=True)
class Mechanism:
    """Gaussian noise on sums of bounded vectors, ``queries`` times.

    Attributes:
        noise_multiplier: standard deviation of the noise over the sum's L2 sensitivity, positive.
        sampling_rate: chance with which each record takes part in a query, by itself (Poisson sampling), in (0, 1].
        queries: how many sums are released; each may hang on those before it.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    queries: int = 1

    def __post_init__(self) -> None:
        if type(self.queries) is not int or not 1 <= self.queries <= _MOST_QUERIES:
            raise SettingsError(f"privacy: queries must be an integer in [1, {_MOST_QUERIES}], got {self.queries!r}")
        if not _positive(self.noise_multiplier) or not _positive(self.sampling_rate) or self.sampling_rate > 1:
            raise SettingsError(
                "privacy: noise_multiplier must be positive and sampling_rate in (0, 1], "
                f"got {self.noise_multiplier!r} and {self.sampling_rate!r}"
            )

    def __str__(self) -> str:
        plain = f"Gaussian noise of {self.noise_multiplier:.3g} sensitivities"
        if self.sampling_rate == 1 and self.queries == 1:
            return plain
        return f"{plain}, {self.queries:,} times on a Poisson sample at rate {self.sampling_rate:.3g}"


@dataclass(frozen=True)
class Guarantee:
    """(ε, δ)-differential privacy (Dwork et al. 2006) of what was released, in the unit of one record.

    Two data sets are neighbours if one is the other with a single labelled record added or removed. For replacing a
    record, the same release has the guarantee of a group of two: at most (2 ε, δ (1 + exp ε)).

    Attributes:
        epsilon: positive. 0 < ``delta`` < 1.
        mechanism: the noise that gives them.
        bound: L2 sensitivity: the most that a record may change a sum.
        accountant: which theorem or library says so.
        seeded: the noise follows from a seed that others may know. Then nothing is guaranteed; for tests.
        unit, neighbours: always "record" and "add or remove one"; written down so that files say it.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    epsilon: float
    delta: float
    mechanism: Mechanism
    bound: float
    accountant: str
    seeded: bool = False
    unit: str = UNIT
    neighbours: str = NEIGHBOURS

    def __post_init__(self) -> None:
        check_target(self.epsilon, self.delta)
        if not _positive(self.bound):
            raise SettingsError(f"privacy: bound must be positive, got {self.bound!r}")
        if (self.unit, self.neighbours) != (UNIT, NEIGHBOURS):
            raise SettingsError(f"privacy: only {UNIT!r} and {NEIGHBOURS!r} are known")

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise, in the unit of ``bound``."""
        return self.mechanism.noise_multiplier * self.bound

    @property
    def holds(self) -> bool:
        """Whether anything is guaranteed at all."""
        return not self.seeded

    def as_record(self) -> dict[str, Any]:
        """JSON values, the inverse of :meth:`of`."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Guarantee:
        """Read what :meth:`as_record` wrote; it may come from anyone, and then is only what they claim.

        Raises:
            PayloadError: it is not of that form.
        """
        try:
            given = dict(record)
            mechanism = Mechanism(**given.pop("mechanism"))
            if not isinstance(given["accountant"], str) or type(given["seeded"]) is not bool:
                raise SettingsError("accountant must be a text and seeded true or false")
            return cls(mechanism=mechanism, **given)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise PayloadError(f"this is no privacy guarantee: {str(error)[:200]}") from error

    def __str__(self) -> str:
        if self.seeded:
            return "none: noise from a known seed"
        return f"({self.epsilon:g}, {self.delta:g})-DP of a {self.unit}"


def guarantee_of(provenance: Mapping[str, Any]) -> Guarantee | None:
    """The guarantee that ``provenance`` holds; None where none is claimed, or where the noise had a known seed.

    Raises:
        PayloadError: what stands there is no guarantee.
    """
    if KEY not in provenance:
        return None
    found = Guarantee.of(provenance[KEY])
    return found if found.holds else None


def weakest(guarantees: Iterable[Guarantee | None]) -> Guarantee | None:
    """Of all releases together, where each is of *other* records (clients, experiences): the largest ε and δ.

    A record is in one of them alone, which is parallel composition (McSherry 2009). None if one of them is, or if there
    are none; seeded if one is. Releases of the *same* records add up instead: see :func:`epsilon_of` and the ledger.
    """
    known = list(guarantees)
    sure = [one for one in known if one is not None]
    if not sure or len(sure) < len(known):
        return None
    worst = max(sure, key=lambda one: (one.epsilon, one.delta))
    return replace(worst, delta=max(one.delta for one in sure), seeded=any(one.seeded for one in sure))


def check_target(epsilon: float, delta: float) -> None:
    """SettingsError unless 0 < ε and 0 < δ < 1, both finite numbers."""
    if not _positive(epsilon) or not _positive(delta) or delta >= 1:
        raise SettingsError(f"privacy needs epsilon > 0 and delta in (0, 1), got {epsilon!r} and {delta!r}")


def _positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]
