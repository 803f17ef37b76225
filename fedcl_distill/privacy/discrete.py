"""Gaussian noise in whole numbers, drawn exactly: no rounding of floats leaves a trace of what it is added to.

What a computer adds to a number in floating point is not Gaussian in its least bits, and these can give away the number
(Mironov 2012). Here the numbers are whole multiples of a step, and so is the noise. A value's probability is
proportional to exp(-x² / 2σ²), to the last bit, for it is decided by comparing whole random numbers alone (Canonne,
Kamath and Steinke 2020, algorithms 1 to 3, with a Laplace scale of σ).

Theorem. Rounding Gaussian noise N(0, σ²) to whole numbers after it was added to a whole number is post-processing, and
so keeps its guarantee. The probability of what is drawn here differs from that of rounded Gaussian noise by a factor of
at most exp(±(x²/σ² + 1) / 24σ²) for each number x, up to terms in σ⁻⁴. The squares of n numbers add up to at most
2 n + 180 times σ² but for one time in e^60 (Laurent and Massart 2000, lemma 1). So n numbers differ by a factor of
exp(±(3 n + 180) / 24σ²) together: with σ = 2^20 and a million of them, exp(±1e-7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.parameterizations.checks import check_integer
from fedcl_distill.privacy.noise import NoiseSource

MOST_STEPS = 2**20
"""The largest deviation, in steps: with it, all products below fit into 63 bits."""

Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def discrete_gaussian(source: NoiseSource, deviation: int, shape: Sequence[int], *path: str | int) -> Tensor:
    """int64 of this shape: values of the discrete Gaussian, of the draw named ``path``.

    Args:
        source: of randomness.
        deviation: σ, a whole number in [1, 2^20]. Above 2 it is the standard deviation as well, to eight digits.
        shape: of what is returned.
        path: names the draw.

    Raises:
        SettingsError: ``deviation`` is out of range.
    """
    check_integer("deviation", deviation, 1, MOST_STEPS)
    draws = _Draws(source, path)

    def propose(count: int) -> tuple[Whole, Flags]:
        found = _laplace(draws, deviation, count)
        return found, _exp_minus(draws, (np.abs(found) - deviation) ** 2, 2 * deviation**2)

    return torch.from_numpy(_until_kept(math.prod(shape), propose)).view(tuple(shape))


def difference_of_whole_noise(count: int, deviation: float) -> float:
    """By how much the logarithm of the probability of so many numbers differs from that of rounded Gaussian ones.

    Args:
        count: how many numbers.
        deviation: of each, in steps.
    """
    return (3 * count + 180) / (24 * deviation**2)


def _until_kept(count: int, propose: Callable[[int], tuple[Whole, Flags]]) -> Whole:
    """(count,): rejection sampling. ``propose`` gives so many values and which of them are kept; others are redrawn."""
    values, missing = np.empty(count, np.int64), np.arange(count)
    while len(missing):
        found, keep = propose(len(missing))
        values[missing[keep]] = found[keep]
        missing = missing[~keep]
    return values


class _Draws:
    """Whole random numbers, one after the other."""

    def __init__(self, source: NoiseSource, path: Sequence[str | int]) -> None:
        self._source, self._path, self._count = source, path, 0

    def below(self, high: int, count: int) -> Whole:
        """(count,) uniform in [0, high), by rejection of what is not below it."""

        def propose(count: int) -> tuple[Whole, Flags]:
            found = self._bits((high - 1).bit_length(), count)
            return found, found < high

        return _until_kept(count, propose)

    def _bits(self, bits: int, count: int) -> Whole:
        self._count += 1
        words = self._source.words(count, *self._path, self._count)
        return (words >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(count, np.int64)


def _laplace(draws: _Draws, scale: int, count: int) -> Whole:
    """(count,) with probability proportional to exp(-|x| / scale)."""

    def propose(count: int) -> tuple[Whole, Flags]:
        low = draws.below(scale, count)
        keep = _exp_minus(draws, low, scale)
        size = low + scale * _geometric(draws, count)
        negative = draws.below(2, count) == 1
        keep &= ~(negative & (size == 0))  # zero would come twice as often
        return np.where(negative, -size, size), keep

    return _until_kept(count, propose)


def _geometric(draws: _Draws, count: int) -> Whole:
    """(count,): how often in a row something of probability 1/e happens."""
    values, going = np.zeros(count, np.int64), np.arange(count)
    while len(going):
        going = going[_exp_minus_fraction(draws, np.ones(len(going), np.int64), 1)]
        values[going] += 1
    return values


def _exp_minus(draws: _Draws, numerators: Whole, denominator: int) -> Flags:
    """True with probability exp(-numerator / denominator), for each numerator ≥ 0."""
    whole, rest = np.divmod(numerators, denominator)
    result = _exp_minus_fraction(draws, rest, denominator)
    going = np.flatnonzero(result & (whole > 0))
    while len(going):
        again = _exp_minus_fraction(draws, np.ones(len(going), np.int64), 1)
        result[going[~again]] = False
        whole[going] -= 1
        going = going[again & (whole[going] > 0)]
    return result


def _exp_minus_fraction(draws: _Draws, numerators: Whole, denominator: int) -> Flags:
    """The same for fractions γ in [0, 1]: trials of chance γ/1, γ/2, γ/3 … succeed an even number of times in a row."""
    successes, going = np.zeros(len(numerators), np.int64), np.arange(len(numerators))
    trial = 0
    while len(going):
        trial += 1
        success = draws.below(denominator, len(going)) < numerators[going]
        success &= draws.below(trial, len(going)) == 0
        going = going[success]
        successes[going] += 1
    even: Flags = successes % 2 == 0
    return even
