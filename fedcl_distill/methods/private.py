"""What private methods have in common."""

from __future__ import annotations

from pathlib import Path

from fedcl_distill.privacy import NoiseSource, PrivacyTarget
from fedcl_distill.privacy.guarantee import check_target


def checked_target(epsilon: float | None, delta: float) -> PrivacyTarget | None:
    """The target of a method's settings; None for no noise.

    Raises:
        SettingsError: a value is out of range.
    """
    if epsilon is None:
        check_target(1.0, delta)
        return None
    return PrivacyTarget(epsilon, delta)


def noise_for(seed: int | None, secret: Path | None, data: str) -> NoiseSource:
    """Noise from ``seed``, from the file at ``secret`` (of ``data``, by fingerprint), or fresh where both are None."""
    if seed is not None:
        return NoiseSource.seeded(seed)
    return NoiseSource.fresh() if secret is None else NoiseSource.kept(secret, data)
