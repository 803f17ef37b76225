"""How much privacy noise costs, and how much noise a target takes: by Google's dp-accounting, never by our own sums.

The accountant is that of privacy loss distributions (PLD; Koskela et al. 2020; Doroshenko et al. 2022), discretised so
that every ε is an upper bound. It is tight: for a single Gaussian release it agrees with the analytic formula of Balle
and Wang (2018), and for sampled ones it gives some ten per cent less than Rényi accounting (Mironov 2017), which is
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any

from fedcl_distill.data.optional import require
from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy.guarantee import Mechanism, check_target

_STEP = 1e-3  # of the discretised privacy loss; a tenth of it changes ε by less than half a per cent
_TOLERANCE = 1e-3  # of the noise multiplier that is looked for, relative
_ORDERS = [*range(2, 64), 96, 128, 256, 512]  # whole ones have a closed form
_LEAST_NOISE = 0.1  # sensitivities; a single release with so little has an ε of about 90


def epsilon_of(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """The least ε that the accountant can vouch for after all ``mechanisms`` on the same records, at this ``delta``.

    Neighbours differ in one record, added or removed. Mechanisms must be chosen beforehand: their noise must not be
    set by what earlier ones gave (their *queries* may hang on that).

    Raises:
        SettingsError: ``delta`` is not in (0, 1).
        DependencyError: dp-accounting is not installed.
    """
    check_target(1.0, delta)
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
    check_target(epsilon, delta)
    Mechanism(1.0, sampling_rate, queries)
    if _rdp_epsilon(_LEAST_NOISE, sampling_rate, queries, delta) <= epsilon:
        raise SettingsError(f"privacy: epsilon {epsilon:g} asks for next to no noise; take less")
    bracket = _library().LowerEndpointAndGuess(_LEAST_NOISE, 1.0)
    above = _calibrated("rdp", (epsilon, delta, sampling_rate, queries), bracket, 0.01)  # in no time; never too small
    bracket = _library().ExplicitBracketInterval(max(above / 3, _LEAST_NOISE / 2), above * 1.05)
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
