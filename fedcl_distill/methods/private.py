"""What private methods have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.privacy import NoiseSource, PrivacyTarget


def checked_target(epsilon: float | None, delta: float) -> PrivacyTarget | None:
    """The target of a method's settings; None for no noise, which settings files write as 0.

    Raises:
        SettingsError: a value is out of range.
    """
    target = PrivacyTarget(epsilon or 1.0, delta)
    return target if epsilon else None


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


def beside(checkpoint: str | os.PathLike[str], suffix: str) -> Path:
    """Where a run keeps, beside its checkpoint, what makes sure that it asks its records nothing twice.

    Raises:
        CheckpointError: the checkpoint is there without it: what was released before is not known.
    """
    path = Path(f"{os.fspath(checkpoint)}{suffix}")
    if Path(checkpoint).exists() and not path.exists():
        raise CheckpointError(f"checkpoint {checkpoint} is there without {path}; remove it to release anew")
    return path


def noise_for(seed: int | None, checkpoint: str | os.PathLike[str] | None, origin: str) -> NoiseSource:
    """Noise from ``seed``, below the key kept beside ``checkpoint`` for the releases ``origin``, or fresh."""
    if seed is not None:
        return NoiseSource.seeded(seed)
    return NoiseSource.fresh() if checkpoint is None else NoiseSource.kept(beside(checkpoint, NOISE), origin)


NOISE = ".noise"
"""What the file with a key has after the name of the checkpoint."""
