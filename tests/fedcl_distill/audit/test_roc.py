"""Areas, rates and intervals against brute force, scipy and coverage."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedcl_distill.audit import auc, clopper_pearson, roc_curve, true_positive_rate
from fedcl_distill.errors import DataError, SettingsError

_scores = st.lists(st.integers(-3, 3), min_size=2, max_size=12).map(lambda values: torch.tensor(values).double())


@given(_scores, _scores)
@settings(max_examples=60, deadline=None)
def test_the_area_counts_pairs_and_lies_under_the_curve(members, others):
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one in members for other in others]
    estimate = auc(members, others)
    assert estimate.value == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    false_rates, true_rates = roc_curve(members, others)
    assert float(torch.trapezoid(true_rates, false_rates)) == pytest.approx(estimate.value)
    assert auc(others, members).value == pytest.approx(1 - estimate.value)


@given(_scores, _scores, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_rate_is_the_best_point_of_the_curve_within_reach(members, others, reach):
    false_rates, true_rates = roc_curve(members, others)
    best = float(true_rates[false_rates <= reach + 1e-9].max())
    assert true_positive_rate(members, others, reach).value == pytest.approx(best)


def test_delong_agrees_with_resampling():
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(150, generator=generator) + 0.6
    others = torch.randn(200, generator=generator)
    estimate = auc(members, others)
    drawn = []
    for _ in range(600):
        rows = torch.randint(150, (150,), generator=generator), torch.randint(200, (200,), generator=generator)
        drawn.append(auc(members[rows[0]], others[rows[1]]).value)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * statistics.stdev(drawn), rel=0.12)


def test_intervals_cover_as_often_as_they_say():
    generator = torch.Generator().manual_seed(1)
    truth = float(stats.norm.cdf(0.5 / 2**0.5))
    hits = 0
    for _ in range(400):
        estimate = auc(torch.randn(80, generator=generator) + 0.5, torch.randn(80, generator=generator))
        hits += estimate.low <= truth <= estimate.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (17, 2000), (1990, 2000)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_clopper_pearson_is_scipys(successes, trials, confidence):
    ours = clopper_pearson(successes, trials, confidence)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_perfect_and_blind_attacks():
    ordered = torch.arange(100).double()
    assert auc(ordered + 100, ordered).value == 1
    assert true_positive_rate(ordered + 100, ordered, 0.0).value == 1
    same = torch.zeros(100)
    assert auc(same, same) == (0.5, 0.5, 0.5)
    assert true_positive_rate(same, same, 0.5).value == 0  # a threshold that finds any member accepts everybody


def test_what_cannot_be_judged_is_refused():
    good = torch.arange(5.0)
    for bad in (good[:1], torch.tensor([0.0, float("nan")]), good.view(1, 5)):
        with pytest.raises(DataError):
            auc(good, bad)
    with pytest.raises(SettingsError):
        true_positive_rate(good, good, 1.5)
    with pytest.raises(SettingsError):
        clopper_pearson(1, 0)
    with pytest.raises(SettingsError):
        auc(good, good, confidence=1.0)
