"""How well attacks did, as JSON values for a result line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.audit import Estimate, auc, one_run_epsilon, roc_curve, true_positive_rate
from simulations.audit.game import Game

RATES = (0.01, 0.001)
"""False positive rates at which finds are counted."""

_CURVE_POINTS = 41
_GUESSES = ((0.01, 0.0), (0.025, 0.0), (0.05, 0.05), (0.5, 0.5))
"""Fractions of the candidates that are guessed to be members and others, for bounds of ε; fixed for all audits."""


def judge_attack(scores: Tensor, members: Tensor, confidence: float) -> dict[str, Any]:
    """Area, finds and curve of one attack on each of several releases, and their means.

    The ends of intervals are means, too: that holds however the releases' errors hang together.

    Args:
        scores: floats (releases, n).
        members: bool (releases, n).
        confidence: of the intervals.
    """
    sides = [(one[inside], one[~inside]) for one, inside in zip(scores, members, strict=True)]
    found: dict[str, Any] = {"auc": _mean([auc(*both, confidence) for both in sides])}
    for rate in RATES:
        if min(len(others) for _, others in sides) * rate >= 1:
            finds = [true_positive_rate(*both, rate, confidence) for both in sides]
            found[f"tpr_at_{rate:g}"] = _mean(finds)
    false_rates = torch.logspace(-math.log10(scores.shape[1] / 2), 0, _CURVE_POINTS, dtype=torch.float64)
    curves = [_interpolated(*roc_curve(*both), false_rates) for both in sides]
    found["curve"] = {"fpr": false_rates.tolist(), "tpr": torch.stack(curves).mean(dim=0).tolist()}
    return found


def bounds_of_epsilon(
    scores: Mapping[str, Tensor], game: Game, *, delta: float, confidence: float
) -> dict[str, float] | None:
    """A lower bound of ε from each attack on the first release; all of them, so the largest, hold with ``confidence``.

    None where members were not drawn by fair coins: nothing can be concluded then.
    """
    if not game.fair:
        return None
    count = len(game.candidates)
    guesses = [(int(count * inside), int(count * outside)) for inside, outside in _GUESSES]
    each = 1 - (1 - confidence) / len(scores)
    return {
        name: one_run_epsilon(one, game.members[0], guesses=guesses, delta=delta, confidence=each)
        for name, one in scores.items()
    }


def _mean(estimates: Sequence[Estimate]) -> dict[str, Any]:
    ends = {name: fmean(getattr(one, name) for one in estimates) for name in Estimate._fields}
    return {**ends, "values": [one.value for one in estimates]}


def _interpolated(false_rates: Tensor, true_rates: Tensor, places: Tensor) -> Tensor:
    """The curve as steps: the best rate reached within each false positive rate."""
    within = torch.searchsorted(false_rates, places + 1e-12, right=True) - 1
    return true_rates[within]
