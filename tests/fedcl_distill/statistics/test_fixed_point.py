"""Sums in fixed point against whole numbers of any size, and at the edge of what fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.statistics import (
    ClassStatistics,
    FixedPoint,
    StatisticsExpectation,
    StatisticsSpec,
    Sums,
    add_up,
    class_statistics,
)

SPEC = StatisticsSpec(views=2, architecture="mlp:width=4", dimensions=3, moments=3)
DATA = blobs((3,), classes=2, per_class=5, value_range=(-3.0, 3.0))
DOMAIN = DATA.spec
BOUNDS = {"features": 4.0, "samples": 3.0, "moments": 9.0}


def _statistics(counts, fraction) -> ClassStatistics:
    """Sums that are ``fraction(name)`` of the largest that counts allow."""
    blank = class_statistics(DATA, SPEC)
    sums = {}
    for name, one in blank.sums.items():
        of_name = torch.tensor(counts).expand(len(one.counts), -1).clone()
        sums[name] = Sums(of_name, of_name[..., None] * BOUNDS[name] * fraction(one.values.shape).double())
    return ClassStatistics(SPEC, DOMAIN, sums)


@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.lists(st.integers(0, 50), min_size=2, max_size=2), min_size=1, max_size=6),
    bits=st.sampled_from([16, 32]),
    seed=st.integers(0, 1000),
)
def test_the_sum_of_words_is_the_sum_of_rounded_numbers(counts, bits, seed):
    fixed = FixedPoint(bits, len(counts), 50, BOUNDS)
    draw = np.random.default_rng(seed)
    parties = [_statistics(one, lambda shape: torch.from_numpy(draw.uniform(-1, 1, shape))) for one in counts]
    total = fixed.total(np.sum([fixed.words(one) for one in parties], axis=0, dtype=fixed.dtype), SPEC, DOMAIN)
    assert total.class_counts.tolist() == np.sum(counts, axis=0).tolist()
    for name, found in total.sums.items():
        step = fixed.step(name)
        columns = zip(*(one.sums[name].values.flatten().tolist() for one in parties), strict=True)
        whole = [sum(round(value / step) for value in column) for column in columns]  # Python's: of any size
        most = (found.counts * BOUNDS[name])[..., None].expand_as(found.values).flatten()
        expected = torch.tensor([number * step for number in whole], dtype=torch.float64).clamp(-most, most)
        assert torch.equal(found.values.flatten(), expected)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_nothing_wraps_around_where_every_party_is_at_its_bound(bits, sign):
    fixed = FixedPoint(bits, 7, 90, BOUNDS)
    full = _statistics([90, 90], lambda shape: sign * torch.ones(shape))
    total = fixed.total(sum([fixed.words(full)] * 6, start=fixed.words(full)), SPEC, DOMAIN)
    for name, found in total.sums.items():
        assert found.values.flatten().tolist() == pytest.approx([sign * 7 * 90 * BOUNDS[name]] * found.values.numel())


def test_what_is_lost_is_half_a_step_a_party():
    parts = partition(DATA, "iid", 3, seed=0)
    bounds = StatisticsExpectation(SPEC, DOMAIN).magnitudes
    fixed = FixedPoint(32, 3, 10, bounds)
    measured = [class_statistics(part, SPEC) for part in parts]
    words = np.sum([fixed.words(one) for one in measured], axis=0, dtype=fixed.dtype)
    assert words.shape == (fixed.size(SPEC, DOMAIN),)
    assert len(words) == 2 + 2 * (2 * 3 + 3 + 6)  # counts; classes · (features, samples, moments)
    total, exact = fixed.total(words, SPEC, DOMAIN), add_up(measured)
    for name, found in total.sums.items():
        assert torch.equal(found.counts, exact.sums[name].counts)
        assert (found.values - exact.sums[name].values).abs().max() <= 1.5 * fixed.step(name) * (1 + 1e-9)


def test_bounded_features_and_views_that_look_at_a_part_survive_coarse_words():
    spec = replace(SPEC, kind="characteristic", dimensions=4, share=0.5)
    bounds = StatisticsExpectation(spec, DOMAIN).magnitudes
    assert bounds["features"] == 1.0
    fixed = FixedPoint(16, 2, 30, bounds)
    words = fixed.words(class_statistics(DATA, spec))
    total = fixed.total(words + words, spec, DOMAIN)
    assert torch.equal(total.sums["features"].counts, 2 * class_statistics(DATA, spec).sums["features"].counts)


def test_a_party_that_leaves_the_bounds_says_so():
    fixed = FixedPoint(32, 2, 4, BOUNDS)
    with pytest.raises(DataError, match="5 samples of a class, at most 4"):
        fixed.words(class_statistics(DATA, SPEC))
    with pytest.raises(DataError, match="a mean of moments is 18, at most 9"):
        fixed.words(_statistics_with_moments(18.0))


def _statistics_with_moments(mean):
    honest = _statistics([4, 4], torch.zeros)
    moments = honest.sums["moments"]
    return ClassStatistics(
        SPEC,
        DOMAIN,
        {**honest.sums, "moments": Sums(moments.counts, moments.counts[..., None] * mean + moments.values)},
    )


def test_words_of_a_stranger_are_no_total():
    fixed = FixedPoint(32, 3, 100, BOUNDS)
    size = fixed.size(SPEC, DOMAIN)
    noise = np.random.default_rng(0).integers(0, 2**32, size, dtype=np.uint32)
    noise[:2] = 100  # even where counts are believable
    with pytest.raises(PayloadError, match="larger than its count allows"):
        fixed.total(noise, SPEC, DOMAIN)
    with pytest.raises(PayloadError, match=f"expected {size} words"):
        fixed.total(noise[1:], SPEC, DOMAIN)
    with pytest.raises(PayloadError, match="words of 32 bits"):
        fixed.total(noise.astype(np.uint16), SPEC, DOMAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8}, "16 or 32 bits"),
        ({"parties": 0}, "parties"),
        ({"bits": 16, "parties": 700, "max_samples": 100}, "700 parties of up to 100 samples"),
        ({"bounds": {"samples": 0.0}}, "bound on means of samples"),
        ({"bounds": {"samples": float("nan")}}, "bound on means of samples"),
        ({"bounds": {"samples": "3"}}, "bound on means of samples"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        FixedPoint(**{"bits": 32, "parties": 3, "max_samples": 10, "bounds": BOUNDS, **changes})
