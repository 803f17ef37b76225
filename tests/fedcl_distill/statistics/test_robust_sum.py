"""Statistics added up robustly: against plain sums, against centres by hand, and under lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.robust import CENTRES
from fedcl_distill.statistics import RobustSum, StatisticsSpec, Sums, add_up, class_statistics

SPEC = StatisticsSpec(views=2, architecture="mlp:width=8", moments=2)
ROBUST = ["geometric-median", "median", "trimmed-mean"]


@pytest.fixture(scope="module")
def parties():
    data = blobs((1, 8, 8), classes=3, per_class=60)
    return [class_statistics(part, SPEC) for part in partition(data, "iid", 10, seed=0)]


def _lying(one, shift=100.0, factor=1):
    """Means far away, of many samples; what the form allows."""
    sums = {}
    for name, own in one.sums.items():
        counts = own.counts * factor
        sums[name] = Sums(counts, torch.where(counts[..., None] > 0, own.means + shift, 0.0) * counts[..., None])
    return replace(one, sums=sums)


def test_the_plain_sum_is_the_default(parties):
    assert RobustSum().add_up(parties).digest() == add_up(parties).digest()


@pytest.mark.parametrize("name", [*ROBUST, "mean"])
def test_centres_are_those_of_the_parties_means(parties, name):
    total = RobustSum(centre=name).add_up(parties)
    for kind, sums in total.sums.items():
        assert torch.equal(sums.counts, add_up(parties).sums[kind].counts)
        means = torch.stack([one.sums[kind].means[0, 1] for one in parties])
        counts = torch.stack([one.sums[kind].counts[0, 1] for one in parties]).double()
        np.testing.assert_allclose(sums.means[0, 1], CENTRES[name](means, counts), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ROBUST)
def test_three_attackers_of_ten_with_huge_counts_hardly_move_a_robust_sum(parties, name):
    attacked = [_lying(one, factor=1000) if n in (0, 4, 9) else one for n, one in enumerate(parties)]
    honest = add_up(parties).sums["samples"].means
    plain = add_up(attacked).sums["samples"].means
    adding = RobustSum(centre=name, count_share=0.1)
    assert (plain - honest).abs().mean() > 50
    assert (adding.add_up(attacked).sums["samples"].means - honest).abs().mean() < 1
    believed = RobustSum(centre=name).add_up(attacked).sums["samples"].means
    assert (believed - honest).abs().mean() > 50, "counts must be bounded, too"


def test_no_partys_count_exceeds_its_share(parties):
    attacked = [_lying(one, factor=1000) if n == 3 else one for n, one in enumerate(parties)]
    honest = torch.stack([one.class_counts for n, one in enumerate(parties) if n != 3]).sum(dim=0)
    found = RobustSum(count_share=0.25).add_up(attacked).class_counts
    assert torch.equal(found, (honest / 0.75 - 1e-9).ceil().long()) or (found - honest / 0.75).abs().max() <= 1


def test_classes_that_one_party_holds_stay(parties):
    (alone,) = partition(blobs((1, 8, 8), classes=3, per_class=20), "iid", 1, seed=0)
    only = class_statistics(alone.subset(alone.indices_of(2)), SPEC)
    others = [class_statistics(alone.subset(alone.indices_of(label)), SPEC) for label in (0, 1)]
    total = RobustSum(centre="geometric-median", count_share=0.3).add_up([only, *others])
    assert total.class_counts.tolist() == [20, 20, 20]
    np.testing.assert_allclose(total.sums["samples"].means[0, 2], only.sums["samples"].means[0, 2])


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="unknown centre"):
        RobustSum(centre="other")
    with pytest.raises(SettingsError, match="count_share"):
        RobustSum(count_share=0)
    for centre in ("mean", "median"):
        with pytest.raises(DataError, match="no statistics"):
            RobustSum(centre=centre).add_up([])
