"""Lower bounds of ε from attacks, with exact intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for

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


_LARGEST = 50.0


def epsilon_of_rates(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """The largest ε that these counts of independent trials refute (Jagielski et al. 2020; Nasr et al. 2021).

    (ε, δ)-differential privacy bounds any test: TPR ≤ e^ε FPR + δ, and 1 − FPR ≤ e^ε (1 − TPR) + δ (Kairouz et al.
    2015). Both are evaluated at the lower end of TPR and the upper end of FPR, which hold together with probability
    ``confidence``.

    Args:
        true_positives: of so many ``positives``, releases made with the record, the attack said so.
        false_positives: of so many ``negatives``, releases made without, it said "with" too.
        delta: of the claim, in [0, 1).
        confidence: of the bound.

    Returns:
        The bound, at least 0.
    """
    _check_delta(delta)
    found = clopper_pearson(true_positives, positives, confidence).low
    alarms = clopper_pearson(false_positives, negatives, confidence).high
    return max(0.0, _log_ratio(found - delta, alarms), _log_ratio(1 - alarms - delta, 1 - found))


def epsilon_lower_bound(
    members: Tensor, others: Tensor, *, delta: float = 0.0, confidence: float = 0.95, seed: int
) -> float:
    """A lower bound of ε from scores of independent trials, such as one canary in many releases.

    The threshold is chosen on a random half of the scores and judged on the other: choosing costs no confidence.

    Args:
        members: floats (n,): the attack's score in each trial with the record; larger claims that it was there.
        others: floats (m,): in each trial without.
        delta, confidence: see :func:`epsilon_of_rates`.
        seed: of the halves.

    Raises:
        DataError: fewer than two trials of a kind, or NaN.
    """
    if min(len(members), len(others)) < 2 or torch.isnan(torch.cat([members, others])).any():
        raise DataError("the bound needs two trials of each kind at least, and no NaN")
    (chosen_in, judged_in), (chosen_out, judged_out) = (
        _halves(scores, seed, name) for name, scores in (("members", members), ("others", others))
    )

    threshold = _promising_threshold(chosen_in, chosen_out, delta, confidence)
    found, alarms = int((judged_in >= threshold).sum()), int((judged_out >= threshold).sum())
    return epsilon_of_rates(found, len(judged_in), alarms, len(judged_out), delta=delta, confidence=confidence)


def one_run_p_value(correct: int, guesses: int, candidates: int, epsilon: float, delta: float = 0.0) -> float:
    """Largest probability of so many correct guesses under a guarantee (Steinke et al. 2023, theorem 5.2).

    Each candidate is a member by a fair coin of its own; from one release the attacker guesses the coins of some.
    With W ~ Binomial(``guesses``, 1 / (1 + e^−ε)), it is P[W ≥ v] + 2mδ max_i P[v > W ≥ v − i] / i.

    Args:
        correct: v, guesses that are right.
        guesses: r, in all.
        candidates: m, coins tossed.
        epsilon, delta: of the claim (records added or removed).
    """
    _check_delta(delta)
    if not 0 <= correct <= guesses <= candidates or guesses < 1 or epsilon < 0:
        raise SettingsError(f"expected 0 ≤ {correct} correct ≤ {guesses} guesses ≤ {candidates} candidates and ε ≥ 0")
    rate = 1 / (1 + math.exp(-epsilon))
    value = at_least(correct, guesses, rate)
    if delta and correct:
        below = probabilities(guesses, rate)[:correct].flip(0).cumsum(0)
        value += 2 * candidates * delta * float((below / torch.arange(1, correct + 1)).max())
    return min(1.0, value)


def one_run_epsilon(
    scores: Tensor,
    members: Tensor,
    *,
    guesses: Sequence[tuple[int, int]],
    delta: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """A lower bound of ε from a single release, by the guesses about many records (Steinke et al. 2023).

    Args:
        scores: floats (m,), no NaN; larger claims membership.
        members: bool (m,), each an independent fair coin.
        guesses: pairs (p, q), fixed beforehand: the p highest scores are guessed to be members, the q lowest others.
            Each pair makes a bound at its share of the error (Bonferroni), and the best counts.
        delta, confidence: of the claim, and of the bound.

    Raises:
        DataError: shapes differ, or NaN.
        SettingsError: more guesses than candidates.
    """
    check_confidence(confidence)
    if scores.shape != members.shape or scores.ndim != 1 or torch.isnan(scores).any():
        raise DataError(f"expected scores without NaN, one for each of {tuple(members.shape)} coins")
    order, allowed = scores.argsort(descending=True, stable=True), (1 - confidence) / max(1, len(guesses))
    return max((_one_pair(members[order], pair, delta, allowed) for pair in guesses), default=0.0)


def _one_pair(members: Tensor, pair: tuple[int, int], delta: float, allowed: float) -> float:
    """The bound of one pair; ``members`` in descending order of scores."""
    inside, outside = pair
    total, count = inside + outside, len(members)
    if min(pair) < 0 or total > count:
        raise SettingsError(f"{inside} + {outside} guesses about {count} candidates")
    if total == 0:
        return 0.0
    correct = int(members[:inside].sum()) + int((~members[count - outside :]).sum())

    def fits(epsilon: float) -> bool:
        return one_run_p_value(correct, total, count, epsilon, delta) > allowed

    return 0.0 if fits(0.0) else bisect(fits, 0.0, _LARGEST)


def _log_ratio(numerator: float, denominator: float) -> float:
    if numerator <= 0:
        return 0.0
    return min(_LARGEST, math.log(numerator / denominator)) if denominator > 0 else _LARGEST


def _halves(scores: Tensor, seed: int, name: str) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(scores), generator=generator_for(seed, "halves", name))
    half = len(scores) // 2
    return scores[order[:half]], scores[order[half:]]


def _promising_threshold(members: Tensor, others: Tensor, delta: float, confidence: float) -> float:
    """Where the bound would be largest by approximate intervals: a choice need not be exact."""
    thresholds = torch.unique(torch.cat([members, others]))
    found, alarms = (
        len(scores) - torch.searchsorted(scores.sort().values, thresholds).double() for scores in (members, others)
    )
    low, high = _wilson(found, len(members), confidence)[0], _wilson(alarms, len(others), confidence)[1]
    bounds = torch.maximum((low - delta) / high, (1 - high - delta) / (1 - low))
    return float(thresholds[bounds.argmax()])


def _wilson(successes: Tensor, trials: int, confidence: float) -> tuple[Tensor, Tensor]:
    """Ends of approximate intervals for rates (Wilson 1927), never 0 or 1."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rates, shrink = successes / trials, 1 + z * z / trials
    reach = z * (rates * (1 - rates) / trials + z * z / (4 * trials * trials)).sqrt()
    centre = rates + z * z / (2 * trials)
    return (centre - reach) / shrink, (centre + reach) / shrink


def _check_delta(delta: float) -> None:
    if not 0 <= delta < 1:
        raise SettingsError(f"delta must be in [0, 1), got {delta}")
