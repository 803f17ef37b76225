"""Lower bounds of epsilon: they hold where epsilon is known, come near it, and fail for nobody who keeps a claim."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from fedcl_distill.audit import clopper_pearson, epsilon_lower_bound, epsilon_of_rates, one_run_epsilon, one_run_p_value
from fedcl_distill.errors import DataError, SettingsError


def _randomised_response(bits: torch.Tensor, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Each bit as it is with probability e^ε / (1 + e^ε), else its opposite: ε-differentially private, no better."""
    keep = torch.rand(len(bits), generator=generator) < 1 / (1 + math.exp(-epsilon))
    return torch.where(keep, bits, ~bits)


@pytest.mark.parametrize("epsilon", [0.7, 3.0])
def test_bounds_of_randomised_response_hold_and_come_near(epsilon):
    generator, many, one_run = torch.Generator().manual_seed(3), [], []
    for seed in range(40):
        bits = torch.rand(2000, generator=generator) < 0.5
        answers = _randomised_response(bits, epsilon, generator).double()
        many.append(epsilon_lower_bound(answers[bits], answers[~bits], seed=seed))
        one_run.append(one_run_epsilon(answers, bits, guesses=[(500, 500)]))
    for bounds in (many, one_run):
        assert sum(bound > epsilon for bound in bounds) <= 5  # 5 % of 40 is 2
        assert sum(bounds) / len(bounds) > 0.65 * epsilon


def test_a_release_that_tells_nothing_refutes_nothing():
    generator, bounds = torch.Generator().manual_seed(4), []
    for seed in range(40):
        scores, bits = torch.randn(500, generator=generator), torch.rand(500, generator=generator) < 0.5
        bounds.append(epsilon_lower_bound(scores[bits], scores[~bits], seed=seed))
        bounds.append(one_run_epsilon(scores, bits, guesses=[(5, 0), (25, 25), (250, 250)]))
    assert sum(bound > 0 for bound in bounds) <= 9  # 5 % of 80 is 4


def test_rates_by_hand():
    low, high = clopper_pearson(90, 100).low, clopper_pearson(5, 100).high
    expected = max(math.log((low - 1e-3) / high), math.log((1 - high - 1e-3) / (1 - low)))
    assert epsilon_of_rates(90, 100, 5, 100, delta=1e-3) == pytest.approx(expected)
    assert epsilon_of_rates(50, 100, 50, 100) == 0


def _p_value_step_by_step(correct: int, guesses: int, candidates: int, epsilon: float, delta: float) -> float:
    rate = 1 / (1 + math.exp(-epsilon))
    tail = [stats.binom.sf(count - 1, guesses, rate) for count in range(correct + 1)]
    slopes = [(tail[correct - i] - tail[correct]) / i for i in range(1, correct + 1)]
    return min(1.0, tail[correct] + 2 * candidates * delta * max(slopes, default=0.0))


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize(("correct", "guesses", "candidates"), [(0, 5, 10), (40, 40, 4000), (60, 100, 1000)])
def test_the_p_value_is_the_theorems(correct, guesses, candidates, delta):
    for epsilon in (0.0, 0.7, 4.0):
        ours = one_run_p_value(correct, guesses, candidates, epsilon, delta)
        theirs = _p_value_step_by_step(correct, guesses, candidates, epsilon, delta)
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)


def test_all_guesses_right_has_a_closed_form():
    """q^r = 5 % where all of r guesses are right."""
    members = torch.tensor([True] * 40 + [False] * 60)
    rate = 0.05 ** (1 / 40)
    bound = one_run_epsilon(-torch.arange(100.0), members, guesses=[(40, 0)])
    assert bound == pytest.approx(math.log(rate / (1 - rate)), abs=1e-6)
    with_delta = one_run_epsilon(-torch.arange(100.0), members, guesses=[(40, 0)], delta=1e-4)
    assert with_delta < bound


def test_bad_input_is_refused():
    scores = torch.arange(10.0)
    with pytest.raises(DataError):
        one_run_epsilon(scores, torch.ones(9, dtype=torch.bool), guesses=[(1, 0)])
    with pytest.raises(DataError):
        epsilon_lower_bound(scores, scores[:1], seed=0)
    with pytest.raises(SettingsError):
        one_run_epsilon(scores, scores > 4, guesses=[(8, 8)])
    with pytest.raises(SettingsError):
        epsilon_of_rates(1, 2, 1, 2, delta=1.0)
    with pytest.raises(SettingsError):
        one_run_p_value(5, 4, 10, 1.0)
