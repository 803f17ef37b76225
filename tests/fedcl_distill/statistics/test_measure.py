"""Sums against plain loops over samples, and against the same data divided in other ways."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.statistics import StatisticsSpec, add_up, class_statistics, no_statistics
from fedcl_distill.statistics.spec import feature_map, from_products, products
from fedcl_distill.statistics.sums import looked_at, sample_hashes

CPU = torch.device("cpu")
SMALL = {"views": 3, "architecture": "convnet:width=4,depth=2", "dimensions": 6, "moments": 3}


def _spec(**changes):
    return StatisticsSpec(**{**SMALL, **changes})


def _close(one, other):
    for name, sums in one.sums.items():
        assert torch.equal(sums.counts, other.sums[name].counts), name
        torch.testing.assert_close(sums.values, other.sums[name].values, rtol=1e-5, atol=1e-4)


def _sum_over_samples(data, features):
    """One sample after the other, in float64."""
    sums = dict.fromkeys(range(data.num_classes), 0.0)
    for row in range(len(data)):
        label = int(data.labels[row])
        sums[label] = sums[label] + features(data.inputs(torch.tensor([row])), data.labels[row : row + 1])[0].double()
    return sums


@pytest.mark.parametrize("kind", ["mean", "characteristic"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 6)])
def test_features_are_summed_class_by_class(kind, shape):
    data, spec = blobs(shape, per_class=7), _spec(kind=kind)
    found = class_statistics(data, spec).sums["features"]
    for view in range(spec.views):
        expected = _sum_over_samples(data, feature_map(spec, data.spec, view, CPU))
        for label, values in expected.items():
            torch.testing.assert_close(found.values[view, label], values, rtol=1e-5, atol=1e-5)
    assert found.counts.tolist() == [[7, 7, 7]] * 3


def test_a_view_is_an_augmented_embedding_of_a_random_network_projected():
    data = blobs(per_class=2)
    spec, whole = _spec(), _spec(dimensions=0)
    one, other = (feature_map(each, data.spec, 1, CPU) for each in (spec, whole))
    augmented = other.augment(data.inputs(), data.labels)
    embeddings = other.network.embed(augmented)
    assert not torch.equal(augmented, data.inputs())
    torch.testing.assert_close(other(data.inputs(), data.labels), embeddings)
    torch.testing.assert_close(one(data.inputs(), data.labels), embeddings @ one.projection.T)


def test_characteristic_features_are_cosines_and_sines_of_normalised_embeddings():
    data, spec = blobs((5,), per_class=2), _spec(kind="characteristic", architecture="mlp:width=9", dimensions=8)
    view = feature_map(spec, data.spec, 0, CPU)
    embedding = view.network.embed(data.inputs()).numpy().astype(np.float64)
    phases = embedding / np.linalg.norm(embedding, axis=1, keepdims=True) @ view.projection.numpy().T
    expected = np.concatenate([np.cos(phases), np.sin(phases)], axis=1)
    np.testing.assert_allclose(view(data.inputs(), data.labels).numpy(), expected, atol=1e-5)
    assert abs(float(view.projection.std()) - spec.frequency) < 1.5


def test_projections_keep_squared_lengths_on_average():
    domain = blobs((4,)).spec
    spec = StatisticsSpec(views=400, dimensions=8, architecture="mlp:width=32", moments=0)
    vector = torch.linspace(-1, 1, 32)
    projected = [feature_map(spec, domain, view, CPU).projection @ vector for view in range(spec.views)]
    ratio = torch.stack(projected).square().sum(dim=1).mean() / vector.square().sum()
    assert 0.93 < float(ratio) < 1.07  # standard deviation sqrt(2 / (8 · 400)) = 0.025


def test_samples_and_second_moments():
    data = blobs((3, 6, 6), per_class=9)
    sums = class_statistics(data, _spec(moments=2)).sums
    inputs = data.inputs().double().numpy()
    pooled = inputs.reshape(len(data), 3, 2, 3, 2, 3).mean(axis=(3, 5)).reshape(len(data), 12)
    for label in range(3):
        members = data.labels.numpy() == label
        np.testing.assert_allclose(sums["samples"].values[0, label], inputs[members].sum(0).ravel(), rtol=1e-5)
        second = from_products(sums["moments"].values[0, label], 12)
        np.testing.assert_allclose(second, pooled[members].T @ pooled[members], rtol=1e-4, atol=1e-4)


def test_products_are_read_back_as_a_matrix():
    values = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_products(products(values)[0], 5), torch.outer(values[0], values[0]))


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.01", "classes:1"])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_sums_over_clients_are_sums_over_pooled_data(how, share):
    data, spec = blobs(per_class=30), _spec(share=share)
    parts = partition(data, how, 3, seed=1)
    _close(add_up(class_statistics(part, spec) for part in parts), class_statistics(data, spec))


def test_absent_classes_and_no_samples_at_all_count_nothing():
    data, spec = blobs(), _spec()
    one_class = class_statistics(data.subset(data.indices_of(1)), spec)
    assert one_class.class_counts.tolist() == [0, 20, 0]
    assert not one_class.sums["features"].values[:, [0, 2]].any()
    nothing = class_statistics(data.subset(torch.tensor([], dtype=torch.int64)), spec)
    assert int(nothing.class_counts.sum()) == 0
    _close(one_class + nothing, one_class)
    _close(one_class + no_statistics(spec, data.spec), one_class)


def test_shares_go_by_what_samples_hold_and_views_differ():
    data = blobs(per_class=400)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(3))
    hashes, shuffled = sample_hashes(data, 5), sample_hashes(data.subset(order), 5)
    assert (hashes[order.numpy()] == shuffled).all()
    views = [set(looked_at(hashes, 0.25, 5, view).tolist()) for view in range(40)]
    assert {int(order[row]) for row in looked_at(shuffled, 0.25, 5, 0)} == views[0]
    sizes = np.array([len(view) for view in views]) / len(data)
    assert abs(sizes.mean() - 0.25) < 0.01
    assert sizes.std() < 0.03
    overlap = np.mean([len(one & other) / len(one) for one, other in pairwise(views)])
    assert abs(overlap - 0.25) < 0.03  # independent
    assert set().union(*views) == set(range(len(data)))


def test_statistics_of_other_features_or_other_data_do_not_add():
    data = blobs()
    one = class_statistics(data, _spec())
    for change in ({"seed": 1}, {"dimensions": 5}, {"kind": "characteristic"}, {"share": 0.5}, {"augment": False}):
        with pytest.raises(DataError, match="another specification"):
            one + class_statistics(data, _spec(**change))
    other = blobs(seed=1)  # measures its own normalisation
    with pytest.raises(DataError, match="another kind of data"):
        one + class_statistics(other, _spec())
    with pytest.raises(DataError, match="no statistics"):
        add_up([])


def test_same_seed_same_sums(untouched_global_rng):
    data = blobs()
    one, again, other = (class_statistics(data, _spec(seed=seed)) for seed in (4, 4, 5))
    assert one.digest() == again.digest() != other.digest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"views": 1},
        {"views": True},
        {"seed": -1},
        {"dimensions": 1.5},
        {"kind": "median"},
        {"kind": "characteristic", "dimensions": 3},
        {"kind": "characteristic", "dimensions": 0},
        {"share": 0},
        {"share": 1.1},
        {"share": float("nan")},
        {"frequency": "high"},
        {"moments": 65},
        {"augment": 1},
        {"architecture": "transformer"},
        {"architecture": 3},
        {"architecture": "mlp:width=1000000"},
        {"other": 1},
    ],
)
def test_specifications_that_cannot_be(wrong):
    with pytest.raises(SettingsError):
        StatisticsSpec.of(wrong)


def test_a_specification_survives_its_settings():
    spec = _spec(share=0.3, kind="characteristic", seed=2**63 - 1)
    assert StatisticsSpec.of(spec.settings()) == spec


def test_networks_that_cannot_read_the_samples_are_refused():
    with pytest.raises(SettingsError, match="needs images"):
        class_statistics(blobs((4,)), _spec())
