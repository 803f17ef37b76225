"""What a guarantee takes where numbers, and the noise on them, are whole multiples of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy.accounting import noise_multiplier_for
from fedcl_distill.privacy.discrete import difference_of_whole_noise
from fedcl_distill.privacy.guarantee import Guarantee
from fedcl_distill.privacy.target import PrivacyTarget

_RESERVE = 1e-3  # of ε, for what whole noise differs from rounded Gaussian noise
_LARGEST_BOUND = 2.0


def guarantee_on_grid(
    target: PrivacyTarget,
    numbers: Mapping[str, int],
    units: Mapping[str, float],
    steps: Mapping[str, float],
    *,
    seeded: bool = False,
) -> Guarantee:
    """What holds once every number was rounded to its block's step, and got whole noise of deviation ``bound`` · σ.

    Rounding changes the difference of two neighbours by at most a step in each number that they differ in, so that
    the sensitivity of 1 grows by the length of these steps. What whole noise differs from rounded Gaussian noise (see
    :mod:`~fedcl_distill.privacy.discrete`) is paid from a thousandth of ε, kept for it. Both are in ``bound``.

    Args:
        target: ε and δ of one release.
        numbers: by block, how many a record may change.
        units: by block, the deviation of its noise for a noise multiplier of 1, where nothing is rounded.
        steps: by block.
        seeded: the noise follows from a seed that others may know.

    Raises:
        SettingsError: the steps are too coarse for this ε.
    """
    rounding = math.sqrt(sum(count * (steps[name] / units[name]) ** 2 for name, count in numbers.items()))
    noise = noise_multiplier_for(target.epsilon * (1 - _RESERVE), target.delta) * (1 + rounding)
    deviations = {name: noise * units[name] / steps[name] for name in numbers}  # in steps
    difference = 2 * sum(difference_of_whole_noise(count, deviations[name]) for name, count in numbers.items())
    if 1 + rounding > _LARGEST_BOUND or difference > _RESERVE * target.epsilon:
        raise SettingsError(f"privacy: numbers are rounded too coarsely for epsilon {target.epsilon:g}; take more bits")
    plain = target.guarantee(1.0, seeded=seeded)
    return target.guarantee(noise / plain.mechanism.noise_multiplier, seeded=seeded)
