"""Exact statements about counts: binomial tails and the intervals that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError

_HALVINGS = 60


class Estimate(NamedTuple):
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def probabilities(trials: int, rate: float) -> Tensor:
    """float64 (trials + 1,): P[Binomial(trials, rate) = k] for every k."""
    counts = torch.arange(trials + 1, dtype=torch.float64)
    total = torch.lgamma(torch.tensor(trials + 1.0, dtype=torch.float64))
    ways = total - torch.lgamma(counts + 1) - torch.lgamma(trials - counts + 1)
    one = torch.tensor(rate, dtype=torch.float64)
    chances: Tensor = (ways + torch.xlogy(counts, one) + torch.special.xlog1py(trials - counts, -one)).exp()
    return chances


def at_least(count: int, trials: int, rate: float) -> float:
    """P[Binomial(trials, rate) ≥ count]."""
    return min(1.0, float(probabilities(trials, rate)[count:].sum()))


def at_most(count: int, trials: int, rate: float) -> float:
    """P[Binomial(trials, rate) ≤ count]."""
    return min(1.0, float(probabilities(trials, rate)[: count + 1].sum()))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """The rate of ``successes`` among independent ``trials`` with its exact interval (Clopper and Pearson 1934).

    Each end alone is wrong with probability at most (1 − ``confidence``) / 2.

    Raises:
        SettingsError: there is no trial, or counts and confidence are out of range.
    """
    check_confidence(confidence)
    if trials < 1 or not 0 <= successes <= trials:
        raise SettingsError(f"expected 0 ≤ successes ≤ trials and a trial at least, got {successes} of {trials}")
    tail = (1 - confidence) / 2
    low = bisect(lambda rate: at_least(successes, trials, rate) > tail, 0.0, 1.0) if successes else 0.0
    high = bisect(lambda rate: at_most(successes, trials, rate) <= tail, 0.0, 1.0) if successes < trials else 1.0
    return Estimate(successes / trials, low, high)


def bisect(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """The place in [low, high] from which on ``beyond`` holds."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return (low + high) / 2


def check_confidence(confidence: float) -> None:
    """Raise SettingsError unless ``confidence`` is in (0, 1)."""
    if not 0 < confidence < 1:
        raise SettingsError(f"confidence must be between 0 and 1, got {confidence}")
