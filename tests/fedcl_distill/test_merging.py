"""Truth: counting. Merging keeps what each class stands for, and resampling sees samples as often as they weigh."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.merging import Merger, MergeTree, WeightedSet, weighted_union
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.seeding import generator_for
from fedcl_distill.training import TrainConfig, fit, predict, systematic_resample
from synthetic_builders import make_set

DATA = blobs((6,), classes=3, per_class=40)
MERGER = Merger(build_method("herding"), per_class=2)


def _sets(clients: int) -> list[WeightedSet]:
    parts = partition(DATA, "dirichlet:0.3", clients, seed=0)
    sets = [build_method("random").distil(part, 2, seed=0, absent_classes="skip") for part in parts]
    return [WeightedSet.standing_for(one, len(part)) for one, part in zip(sets, parts, strict=True)]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40), st.integers(0, 9))
def test_every_sample_comes_as_often_as_it_weighs_but_for_rounding(values: list[float], seed: int) -> None:
    weights = torch.tensor(values, dtype=torch.float64)
    rows = systematic_resample(weights, generator_for(seed))
    expected = len(weights) * weights / weights.sum()
    counts = rows.bincount(minlength=len(weights))
    assert len(rows) == len(weights)
    assert ((counts >= expected.floor() - 1e-6) & (counts <= expected.ceil() + 1e-6)).all()


def test_its_mean_is_the_weight() -> None:
    weights = torch.tensor([0.3, 1.9, 0.8])
    counts = torch.zeros(3)
    for seed in range(4000):
        counts += systematic_resample(weights, generator_for(seed)).bincount(minlength=3)
    torch.testing.assert_close(counts / 4000, weights, atol=0.04, rtol=0)


@pytest.mark.parametrize("value", [0.1, 1.0, 1 / 3, 1e9])
def test_equal_weights_are_no_weights(value: float) -> None:
    assert torch.equal(systematic_resample(torch.full((1000,), value), generator_for(1)), torch.arange(1000))


def test_training_with_equal_weights_is_training_without() -> None:
    networks = [Architecture.parse("mlp:width=8").build((6,), 3, seed=0) for _ in range(2)]
    for network, weights in zip(networks, (None, torch.full((len(DATA),), 2.0)), strict=True):
        fit(network, DATA.inputs(), DATA.labels, TrainConfig(epochs=2), seed=0, weights=weights)
    assert torch.equal(networks[0](DATA.inputs()), networks[1](DATA.inputs()))


def test_training_listens_to_samples_that_weigh_more() -> None:
    inputs = torch.cat([DATA.inputs()[:40], DATA.inputs()[:40]])
    labels = torch.tensor([0] * 40 + [1] * 40)  # the same samples are called 0 and 1
    for heavy in (0, 1):
        network = Architecture.parse("mlp:width=8").build((6,), 3, seed=0)
        weights = torch.where(labels == heavy, 9.0, 1.0)
        fit(network, inputs, labels, TrainConfig(epochs=30, learning_rate=0.1), seed=0, weights=weights)
        assert (predict(network, DATA.subset(torch.arange(40))) == heavy).all()


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, float("nan")], [0.0, 1.0], [1, 1]])
def test_bad_weights_are_refused(values: list[float]) -> None:
    weights = torch.tensor(values)
    with pytest.raises(SettingsError, match="weights"):
        WeightedSet(make_set((2, 4)), weights)


def test_merging_keeps_what_each_class_stands_for_and_bounds_the_size() -> None:
    sets = _sets(12)
    whole, tree = weighted_union(sets), MergeTree(MERGER, max_samples=14, seed=0)
    for one in sets:
        tree.add(one)
        for level in tree._levels:
            assert sum(len(part.synthetic) for part in level) <= 14
    merged = tree.result()
    torch.testing.assert_close(merged.class_weights, whole.class_weights)
    assert tree.merges >= 3
    assert merged.synthetic.class_counts.tolist() == [2, 2, 2]


def test_few_sets_stay_as_they_are() -> None:
    tree = MergeTree(MERGER, max_samples=100, seed=0)
    (one,) = _sets(1)
    tree.add(one)
    merged = tree.result()
    assert torch.equal(merged.synthetic.inputs(), one.synthetic.inputs())
    assert tree.merges == 0


def test_sets_larger_than_the_bound_do_not_pile_up() -> None:
    tree = MergeTree(MERGER, max_samples=1, seed=0)
    for one in _sets(16) * 4:
        tree.add(one)
    assert all(len(level) <= 2 for level in tree._levels)
    assert len(tree._levels) <= 6  # log2(64)
    tree.result()


def test_heavy_samples_prevail() -> None:
    """One client of 900 samples and one of 100 whose samples of a class differ: 18 of 20 seen are the first's."""
    values = torch.arange(20.0)[:, None].expand(20, 4)
    heavy = make_set(pixels=values[:10].clone(), labels=torch.zeros(10, dtype=torch.int64))
    light = make_set(pixels=values[10:].clone(), labels=torch.zeros(10, dtype=torch.int64))
    both = weighted_union([WeightedSet.standing_for(heavy, 900), WeightedSet.standing_for(light, 100)])
    seen = both.as_labelled_data(seed=0)
    assert int((seen.inputs()[:, 0] < 9.5).sum()) == 18


def test_same_seed_same_set() -> None:
    results = []
    for _ in range(2):
        tree = MergeTree(Merger(build_method("random"), 2), max_samples=14, seed=5)
        for one in _sets(9):
            tree.add(one)
        results.append(tree.result().synthetic.inputs())
    assert torch.equal(*results)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(DataError, match="3 classes, expected 2"):
        weighted_union([WeightedSet.standing_for(make_set(classes=c), 1) for c in (2, 3)])
    with pytest.raises(DataError, match="no result"):
        MergeTree(MERGER, 10, 0).result()
    with pytest.raises(SettingsError, match="per_class must be a whole number at least 1"):
        Merger(build_method("random"), 0)
