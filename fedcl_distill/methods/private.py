"""What private methods have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import NoiseSource, PrivacyTarget
from fedcl_distill.privacy.accounting import check_target


def checked_target(epsilon: float | None, delta: float) -> PrivacyTarget | None:
    """The target of a method's settings; None for no noise, which settings files write as 0.

    Raises:
        SettingsError: a value is out of range.
    """
    if epsilon is None or epsilon == 0:
        check_target(1.0, delta)
        return None
    return PrivacyTarget(epsilon, delta)


def checked_range(given: Sequence[float] | None) -> tuple[float, float] | None:
    """A public range of a method's settings; None for images of 8 bits, which have one.

    Raises:
        SettingsError: it is not two numbers that ascend.
    """
    if given is None:
        return None
    if len(given) != 2 or not all(type(one) in (int, float) for one in given) or not given[0] < given[1]:
        raise SettingsError(f"public_range must be two numbers that ascend, got {given!r}")
    return float(given[0]), float(given[1])


def noise_for(seed: int | None, secret: Path | None, data: str) -> NoiseSource:
    """Noise from ``seed``, from the file at ``secret`` (of ``data``, by fingerprint), or fresh where both are None."""
    if seed is not None:
        return NoiseSource.seeded(seed)
    return NoiseSource.fresh() if secret is None else NoiseSource.kept(secret, data)
