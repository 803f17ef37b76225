"""Words with shares of noise: what comes out of their total, and how much noise is on it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.privacy import NoiseSource, PrivacyTarget, publicly_scaled
from fedcl_distill.statistics import NoisyFixedPoint, Shares, StatisticsSpec, add_up, class_statistics

SPEC = StatisticsSpec(kind="direction", views=3, architecture="mlp:width=8", dimensions=4)
DATA = publicly_scaled(blobs(classes=2, per_class=30))
DOMAIN = DATA.spec
PARTS = [class_statistics(part, SPEC) for part in partition(DATA, "iid", 5, seed=0)]
FIXED = NoisyFixedPoint(32, parties=5, fewest=4, max_samples=20, target=PrivacyTarget(2.0), shares=Shares())


def total_of(parts, fixed=FIXED, seed=0):
    words = [fixed.words(part, NoiseSource.seeded(100 * seed + number)) for number, part in enumerate(parts)]
    assert all(one.shape == (fixed.size(SPEC, DOMAIN),) for one in words)
    return fixed.total(np.sum(words, axis=0, dtype=fixed.dtype), len(parts), SPEC, DOMAIN)


def test_a_total_is_the_sum_and_the_noise_of_a_single_release():
    exact = add_up(PARTS)
    plain = Shares().deviations(SPEC, DOMAIN, FIXED.target.guarantee(1.0).mechanism.noise_multiplier)
    found: dict[str, list[torch.Tensor]] = {}
    for seed in range(20):
        noisy = total_of(PARTS[:4] if seed % 2 else PARTS, seed=seed)
        of = add_up(PARTS[:4]) if seed % 2 else exact
        wanted = noisy.deviations()
        for name, sums in noisy.sums.items():
            found.setdefault(name, []).append(((sums - of.sums[name].values) / wanted[name]).flatten())
        found.setdefault("counts", []).append((noisy.counts - of.class_counts) / wanted["counts"])
        assert wanted == pytest.approx({name: one * math.sqrt(noisy.variance) for name, one in plain.items()}, rel=0.01)
        assert noisy.variance == (1.0 if seed % 2 else 1.25)  # the fifth's share comes on top
    for parts in found.values():
        values = torch.cat(parts)
        assert values.std() == pytest.approx(1.0, rel=5 / math.sqrt(2 * len(values)))
        assert values.mean().abs() < 5 / math.sqrt(len(values))


def test_each_party_adds_a_share_alone():
    share = FIXED.words(PARTS[0], NoiseSource.seeded(1)).view("<i4")
    other = FIXED.words(PARTS[0], NoiseSource.seeded(2)).view("<i4")
    step, spread = FIXED.steps(SPEC, DOMAIN), total_of(PARTS[:4]).deviations()
    features = slice(2, 2 + 2 * 3 * 4)
    found = (share - other)[features].std() / math.sqrt(2) * step["features"]
    assert found == pytest.approx(spread["features"] / 2, rel=0.5)  # of four


def test_the_guarantee_says_what_rounding_costs():
    guarantee = FIXED.guarantee(SPEC, DOMAIN)
    assert guarantee.holds
    assert (guarantee.epsilon, guarantee.mechanism) == (2.0, FIXED.target.guarantee(1.0).mechanism)
    assert 1.0 < guarantee.bound < 1.01
    assert total_of(PARTS).guarantee == guarantee


def test_what_exceeds_the_agreed_numbers_is_cut_off():
    """An error would tell that there is such a class."""
    tight = dataclasses.replace(FIXED, max_samples=3)
    noisy, wanted = total_of(PARTS, tight), total_of(PARTS, tight).deviations()
    most = 5 * 3
    assert (noisy.counts <= most + 8 * wanted["counts"]).all()
    for name, sums in noisy.sums.items():
        assert (sums.abs() <= most + 8 * wanted[name]).all()


def test_neighbours_differ_by_no_more_than_the_bound():
    """The words without noise, of data with and without one record, in the norm in which noise is measured."""
    steps, units = FIXED.steps(SPEC, DOMAIN), FIXED.shares.deviations(SPEC, DOMAIN, 1.0)
    bound, farthest = FIXED.guarantee(SPEC, DOMAIN).bound, 0.0
    for left_out in range(0, len(DATA), 7):
        keep = torch.arange(len(DATA)) != left_out
        one, other = class_statistics(DATA, SPEC), class_statistics(DATA.subset(keep.nonzero().flatten()), SPEC)
        squares = [(one.class_counts - other.class_counts).double() / units["counts"]]
        for name in one.sums:
            rounded = [(each.sums[name].values / steps[name]).round() * steps[name] for each in (one, other)]
            squares.append((rounded[0] - rounded[1]) / units[name])
        farthest = max(farthest, math.sqrt(sum(float(each.square().sum()) for each in squares)))
    assert 0.1 < farthest <= bound


@pytest.mark.parametrize("heard", [3, 6])
def test_too_few_or_too_many_parties_release_nothing(heard):
    words = np.zeros(FIXED.size(SPEC, DOMAIN), FIXED.dtype)
    with pytest.raises(PayloadError, match="4 to 5 parties"):
        FIXED.total(words, heard, SPEC, DOMAIN)
    with pytest.raises(PayloadError, match="words of 32 bits"):
        FIXED.total(words[1:], 4, SPEC, DOMAIN)


def test_words_that_cannot_hold_the_noise_are_refused():
    coarse = dataclasses.replace(FIXED, bits=16, max_samples=10_000)
    with pytest.raises(SettingsError, match="take more bits"):
        coarse.guarantee(SPEC, DOMAIN)


@pytest.mark.parametrize("changes", [{"bits": 8}, {"fewest": 6}, {"fewest": 0}, {"parties": 0}, {"max_samples": 0}])
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(SettingsError):
        dataclasses.replace(FIXED, **changes)
