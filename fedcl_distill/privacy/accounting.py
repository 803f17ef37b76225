"""What a release guarantees, and how much noise that takes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from typing import Annotated, Any, Final, Literal

from fedcl_distill._imports import require
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DependencyError, PayloadError, SettingsError
from fedcl_distill.settings import OpenFraction, Positive, Range, checked, settings

DELTA = 1e-5

Epsilon = Positive
"""Of a guarantee; finite."""
Delta = OpenFraction
"""Of a guarantee; far less than one over the number of records."""


@settings
class PrivacyTarget:
    """(ε, δ), for one record added or removed.

    Attributes:
        epsilon: positive.
        delta: in (0, 1); far less than one over the number of records.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    epsilon: Epsilon
    delta: Delta = DELTA

    def guarantee(
        self, bound: float, *, sampling_rate: float = 1.0, queries: int = 1, seeded: bool = False
    ) -> Guarantee:
        """What holds once so many queries of sensitivity ``bound`` were answered with the noise they need.

        Raises:
            SettingsError: a value is out of range.
            DependencyError: dp-accounting is not installed.
        """
        noise = noise_multiplier_for(self.epsilon, self.delta, sampling_rate, queries)
        mechanism = Mechanism(noise, sampling_rate, queries)
        return Guarantee(self.epsilon, self.delta, mechanism, bound, accountant_name(), seeded)


_MAX_QUERIES = 10**9
RESERVE = 1e-3
"""Of ε: what whole noise may differ from rounded Gaussian noise, in each release on a grid."""

KEY = "privacy"
"""Where provenance holds a guarantee."""

UNIT: Final = "record"
NEIGHBOURS: Final = "add or remove one"


@settings
class Mechanism:
    """Gaussian noise on sums of bounded vectors, ``queries`` times.

    Attributes:
        noise_multiplier: standard deviation of the noise over the sum's L2 sensitivity, positive.
        sampling_rate: chance with which each record takes part in a query, by itself (Poisson sampling), in (0, 1].
        queries: how many sums are released; each may depend on those before it.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    noise_multiplier: Positive
    sampling_rate: Annotated[float, Range(gt=0, le=1)] = 1.0
    queries: Annotated[int, Range(ge=1, le=_MAX_QUERIES)] = 1

    def __str__(self) -> str:
        plain = f"Gaussian noise of {self.noise_multiplier:.3g} sensitivities"
        if self.sampling_rate == 1 and self.queries == 1:
            return plain
        return f"{plain}, {self.queries:,} times on a Poisson sample at rate {self.sampling_rate:.3g}"


@settings
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

    epsilon: Epsilon
    delta: Delta
    mechanism: Mechanism
    bound: Positive
    accountant: str
    seeded: bool = False
    unit: Literal["record"] = UNIT
    neighbours: Literal["add or remove one"] = NEIGHBOURS

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

    A record is in one of them alone, which is parallel composition (McSherry 2009). That is a fact about the data which
    no release shows: whoever calls this states it, and :func:`shared_records` tests it where all data are at hand. None
    if one of them is, or if there are none; seeded if one is. Else take :func:`composed`.
    """
    sure = _all_or_none(guarantees)
    if not sure:
        return None
    worst = max(sure, key=lambda one: (one.epsilon, one.delta))
    return replace(worst, delta=max(one.delta for one in sure), seeded=any(one.seeded for one in sure))


def composed(guarantees: Iterable[Guarantee | None]) -> Guarantee | None:
    """Of all releases together, where a record may be in each of them: sequential composition.

    Gaussian releases compose exactly: their precisions add up (Dong, Roth and Su 2022), so that all together are as
    many releases with the smallest of their noises; so do equal sampled ones. Others, and all where dp-accounting is
    not installed, have the sum of their ε and δ (Dwork et al. 2006). None if one of them is, if there are none, or if
    nothing is left to guarantee; seeded if one is.

    Example:
        >>> four = composed([PrivacyTarget(1.0).guarantee(1.0)] * 4)
        >>> round(four.epsilon, 1), four.mechanism.queries
        (2.2, 4)
    """
    sure = _all_or_none(guarantees)
    if len(sure) < 2:
        return sure[0] if sure else None
    total, seeded = sum(one.epsilon for one in sure), any(one.seeded for one in sure)
    worst = min(sure, key=lambda one: one.mechanism.noise_multiplier)
    together = _together([one.mechanism for one in sure])
    if together is not None and _is_installed():
        delta = max(one.delta for one in sure)
        epsilon = epsilon_of([together], delta) + RESERVE * total
        bound = worst.deviation / together.noise_multiplier  # the noise is what it is
        return replace(worst, epsilon=epsilon, delta=delta, mechanism=together, bound=bound, seeded=seeded)
    delta = sum(one.delta for one in sure)
    if delta >= 1:
        return None
    return replace(worst, epsilon=total, delta=delta, accountant="sum of ε and δ", seeded=seeded)


def for_group(guarantee: Guarantee, size: int) -> Guarantee:
    """What one Gaussian release guarantees where up to ``size`` ≥ 1 of its records come or go together, as a person's.

    A sum then changes by up to ``size`` bounds, so that the noise is that part of its sensitivity.

    Raises:
        SettingsError: the release is of samples of the records, or ``size`` is no positive whole number.
        DependencyError: dp-accounting is not installed.
    """
    if type(size) is not int or size < 1 or guarantee.mechanism.sampling_rate < 1:
        raise SettingsError(f"privacy: groups are of at least one record, in releases of all; got a size of {size!r}")
    if size == 1:
        return guarantee
    mechanism = replace(guarantee.mechanism, noise_multiplier=guarantee.mechanism.noise_multiplier / size)
    epsilon = epsilon_of([mechanism], guarantee.delta) + size * RESERVE * guarantee.epsilon
    return replace(guarantee, epsilon=epsilon, mechanism=mechanism, bound=size * guarantee.bound)


def shared_records(parts: Iterable[LabelledData]) -> int:
    """How many samples of ``parts`` occur in more than one of them, bit by bit: what :func:`weakest` needs is 0.

    It compares SHA-256 of each sample, whatever its label, and so has to see all parts on one site. A record that was
    changed (cropped, coded anew) is another sample and is not found.

    Example:
        >>> shared_records([data.subset(torch.tensor([0, 1])), data.subset(torch.tensor([1, 2]))])
        1
    """
    seen: dict[bytes, int] = {}
    shared: set[bytes] = set()
    for number, part in enumerate(parts):
        for sample in part.samples.contiguous():
            name = hashlib.sha256(sample.numpy().tobytes()).digest()
            if seen.setdefault(name, number) != number:
                shared.add(name)
    return len(shared)


def _all_or_none(guarantees: Iterable[Guarantee | None]) -> list[Guarantee]:
    """All of them; none where one is None."""
    known = list(guarantees)
    sure = [one for one in known if one is not None]
    return sure if len(sure) == len(known) else []


def _together(mechanisms: Sequence[Mechanism]) -> Mechanism | None:
    """One mechanism that tells as much as all of these; None where they are of different kinds."""
    least = min(mechanisms, key=lambda one: one.noise_multiplier)
    if len({(one.noise_multiplier, one.sampling_rate) for one in mechanisms}) > 1 and any(
        one.sampling_rate < 1 for one in mechanisms
    ):
        return None
    queries = sum(one.queries * (least.noise_multiplier / one.noise_multiplier) ** 2 for one in mechanisms)
    whole = math.ceil(queries - 1e-9)
    if whole > _MAX_QUERIES:
        return None
    return replace(least, queries=whole, noise_multiplier=least.noise_multiplier * math.sqrt(whole / queries))


def _is_installed() -> bool:
    try:
        _library()
    except DependencyError:
        return False
    return True


_STEP = 1e-3  # of the discretised privacy loss; a tenth of it changes ε by less than half a per cent
_TOLERANCE = 1e-3  # of the noise multiplier that is looked for, relative
_ORDERS = [*range(2, 64), 96, 128, 256, 512]  # whole ones have a closed form
_MIN_NOISE = 0.1  # sensitivities; a single release with so little has an ε of about 90


@checked
def epsilon_of(mechanisms: Sequence[Mechanism], delta: Delta) -> float:
    """The least ε that the accountant can vouch for after all ``mechanisms`` on the same records, at this ``delta``.

    Neighbours differ in one record, added or removed. Mechanisms must be chosen beforehand: their noise must not be
    set by what earlier ones gave (their *queries* may depend on that).

    Raises:
        SettingsError: ``delta`` is not in (0, 1).
        DependencyError: dp-accounting is not installed.
    """
    if not mechanisms:
        return 0.0
    accountant = _accountant()
    for one in mechanisms:
        accountant.compose(_event(one))
    return float(accountant.get_epsilon(delta))


@cache
def noise_multiplier_for(epsilon: float, delta: float, sampling_rate: float = 1.0, queries: int = 1) -> float:
    """The least noise multiplier, within a thousandth, with which so many queries are (ε, δ)-differentially private.

    Raises:
        SettingsError: a value is out of range, or the guarantee is so weak that it asks for next to no noise.
        DependencyError: dp-accounting is not installed.
    """
    PrivacyTarget(epsilon, delta)
    Mechanism(1.0, sampling_rate, queries)
    if _rdp_epsilon(_MIN_NOISE, sampling_rate, queries, delta) <= epsilon:
        raise SettingsError(f"privacy: epsilon {epsilon:g} asks for next to no noise; take less")
    bracket = _library().LowerEndpointAndGuess(_MIN_NOISE, 1.0)
    above = _calibrated("rdp", (epsilon, delta, sampling_rate, queries), bracket, 0.01)  # in no time; never too small
    bracket = _library().ExplicitBracketInterval(max(above / 3, _MIN_NOISE / 2), above * 1.05)
    tolerance = above * _TOLERANCE
    return _calibrated("pld", (epsilon, delta, sampling_rate, queries), bracket, tolerance) + tolerance


def _calibrated(kind: str, target: tuple[float, float, float, int], bracket: Any, tolerance: float) -> float:
    epsilon, delta, sampling_rate, queries = target
    return float(
        _library().calibrate_dp_mechanism(
            lambda: _accountant(kind),
            lambda noise: _event(Mechanism(float(noise), sampling_rate, queries)),
            epsilon,
            delta,
            bracket,
            tol=tolerance,
        )
    )


def _rdp_epsilon(noise: float, sampling_rate: float, queries: int, delta: float) -> float:
    accountant = _accountant("rdp")
    accountant.compose(_event(Mechanism(noise, sampling_rate, queries)))
    return float(accountant.get_epsilon(delta))


def accountant_name() -> str:
    """What guarantees name as their accountant."""
    _library()
    return f"PLD, dp-accounting {metadata.version('dp-accounting')}"


def _library() -> Any:
    require("dp_accounting.pld", "privacy accounting", "'fedcl-distill[privacy]'")
    return require("dp_accounting", "privacy accounting", "'fedcl-distill[privacy]'")


def _accountant(kind: str = "pld") -> Any:
    library = _library()
    relation = library.NeighboringRelation.ADD_OR_REMOVE_ONE
    if kind == "rdp":
        return library.rdp.RdpAccountant(_ORDERS, relation)
    return library.pld.PLDAccountant(relation, _STEP)


def _event(mechanism: Mechanism) -> Any:
    library = _library()
    event = library.GaussianDpEvent(mechanism.noise_multiplier)
    if mechanism.sampling_rate < 1:
        event = library.PoissonSampledDpEvent(mechanism.sampling_rate, event)
    return event if mechanism.queries == 1 else library.SelfComposedDpEvent(event, mechanism.queries)
