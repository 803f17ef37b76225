"""Robust centres and bounded shares against closed forms, brute force and their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcl_distill.errors import SettingsError
from fedcl_distill.robust import CENTRES, capped, chance_of_at_most, coordinate_median, geometric_median, trimmed_mean

SEEDS = st.integers(0, 2**31)


def _points(seed, n=7, d=3):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, d, generator=generator, dtype=torch.float64),
        torch.rand(n, generator=generator, dtype=torch.float64) + 0.1,
    )


def test_geometric_median_of_a_triangle_is_its_fermat_point():
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]], dtype=torch.float64)
    found = geometric_median(triangle, torch.ones(3, dtype=torch.float64))
    np.testing.assert_allclose(found, [0.5, math.sqrt(3) / 6], atol=1e-6)


def test_geometric_median_of_a_wide_triangle_is_its_wide_corner():
    """Where a corner has 120 degrees or more, it is the median: plain Weiszfeld would divide by zero there."""
    wide = torch.tensor([[0.0, 0.0], [1.0, 0.1], [-1.0, 0.1]], dtype=torch.float64)
    found = geometric_median(wide, torch.ones(3, dtype=torch.float64))
    np.testing.assert_allclose(found, [0, 0], atol=1e-4)


def test_the_heavier_of_two_points_is_their_median():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    np.testing.assert_allclose(geometric_median(points, torch.tensor([1.0, 2.0]).double()), [3, 4], atol=1e-4)
    np.testing.assert_allclose(geometric_median(points, torch.ones(2).double()), [1.5, 2], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_nothing_near_the_geometric_median_is_nearer_to_all(seed):
    points, weights = _points(seed)

    def total(place):
        return float(weights @ (points - place).norm(dim=1))

    found = geometric_median(points, weights)
    generator = torch.Generator().manual_seed(seed)
    for scale in (1e-3, 1e-1, 1.0):
        step = scale * torch.randn(3, generator=generator, dtype=torch.float64)
        assert total(found) <= total(found + step) + 1e-9


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any))
def test_whole_weights_are_repetitions(seed, repeats):
    points, _ = _points(seed, len(repeats))
    many = points.repeat_interleave(torch.tensor(repeats), dim=0)
    weights, ones = torch.tensor(repeats, dtype=torch.float64), torch.ones(len(many), dtype=torch.float64)
    np.testing.assert_allclose(coordinate_median(points, weights), np.median(many, axis=0), atol=1e-12)
    for name, centre in CENTRES.items():
        np.testing.assert_allclose(centre(points, weights), centre(many, ones), atol=1e-4, err_msg=name)


def test_trimmed_mean_leaves_out_the_extremes():
    points = torch.tensor([5.0, -1e9, 2.0, 3.0, 1e9, 4.0, 1.0, 6.0, 7.0, 8.0], dtype=torch.float64)[:, None]
    found = trimmed_mean(points, torch.ones(10, dtype=torch.float64), 0.2)
    assert float(found) == pytest.approx(np.mean([2, 3, 4, 5, 6, 7]))
    assert float(trimmed_mean(points, torch.ones(10).double(), 0.0)) == pytest.approx(float(points.mean()))


@pytest.mark.parametrize("name", ["geometric-median", "median", "trimmed-mean"])
def test_three_of_ten_cannot_carry_a_robust_centre_away_but_the_mean(name):
    points, _ = _points(0, 10)
    weights = torch.ones(10, dtype=torch.float64)
    attacked = points.clone()
    attacked[:3] = 1e6
    assert (CENTRES[name](attacked, weights) - CENTRES[name](points, weights)).norm() < 4
    assert CENTRES["mean"](attacked, weights).norm() > 1e5


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.05, 1))
def test_capped_weights_are_the_largest_below_the_share(weights, share):
    given_weights = torch.tensor(weights, dtype=torch.float64)
    found = capped(given_weights, share)
    assert (found <= given_weights).all()
    total, present = float(found.sum()), int((given_weights > 0).sum())
    if present * share > 1:
        assert float(found.max()) <= share * total * (1 + 1e-6) + 1e-300
        cut = found < given_weights * (1 - 1e-9)
        if cut.any():  # nothing is cut more than it must be
            np.testing.assert_allclose(found[cut], share * total, rtol=1e-6)
    elif present and share < 1:
        assert found[given_weights > 0].unique().numel() == 1


def test_capped_by_hand():
    assert capped(torch.tensor([10.0, 10.0, 10.0, 970.0]), 0.4).tolist() == pytest.approx([10, 10, 10, 20])
    assert capped(torch.tensor([1.0, 2.0, 3.0]), 1.0).tolist() == [1, 2, 3]
    assert capped(torch.tensor([5.0, 0.0, 7.0]), 0.2).tolist() == [5, 0, 5]
    assert capped(torch.zeros(3), 0.5).tolist() == [0, 0, 0]
    with pytest.raises(SettingsError, match="0, 1"):
        capped(torch.ones(2), 0.0)


def test_chances_are_those_of_all_outcomes():
    chances = torch.tensor([0.1, 0.5, 0.9, 0.3], dtype=torch.float64)
    for count in range(5):
        expected = sum(
            math.prod(p if happens else 1 - p for p, happens in zip(chances.tolist(), outcome, strict=True))
            for outcome in itertools.product([0, 1], repeat=4)
            if sum(outcome) <= count
        )
        assert chance_of_at_most(count, chances) == pytest.approx(expected)
