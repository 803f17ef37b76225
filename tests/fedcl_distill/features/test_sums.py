"""Sums of features against numpy on the data themselves: merging, weights, leaving, low rank."""

import numpy as np
import pytest
import torch

from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.features import FeatureSums, measure, within_scatter
from fedcl_distill.features.sums import Factor

NAMES = ("a", "b", "c")


@pytest.fixture
def clients():
    """Three clients, 40 vectors of 12 numbers each, one of whom lacks a class."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(3, 12, generator=generator, dtype=torch.float64)
    found = []
    for client in range(3):
        labels = torch.randint(3 - (client == 1), (40,), generator=generator)
        noise = torch.randn(40, 12, generator=generator, dtype=torch.float64) * torch.linspace(0.2, 2, 12)
        found.append((centres[labels] + noise, labels))
    return found


def together(clients):
    return torch.cat([one for one, _ in clients]), torch.cat([one for _, one in clients])


def scatter_of(features, labels):
    """Within-class scatter by numpy, class by class."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for label in labels.unique():
        rows = features[labels == label].numpy()
        centred = rows - rows.mean(0)
        total += centred.T @ centred
    return total


def dense(sums):
    scatter = within_scatter(sums)
    if isinstance(scatter, Factor):
        return (scatter.rows.T @ scatter.rows).numpy() + scatter.floor * np.eye(sums.dimensions)
    return scatter.numpy()


def test_counts_means_and_scatter_are_those_of_the_samples(clients):
    features, labels = together(clients)
    sums = measure(features, labels, NAMES)
    assert sums.counts.tolist() == torch.bincount(labels).tolist()
    for label in range(3):
        np.testing.assert_allclose(sums.means[label], features[labels == label].mean(0), rtol=1e-12)
    np.testing.assert_allclose(dense(sums), scatter_of(features, labels), atol=1e-9)


@pytest.mark.parametrize("storage", ["means", "full", "diagonal", "low-rank:rank=12"])
def test_sums_of_clients_are_the_sums_of_all(clients, storage):
    first, *others = (measure(*client, NAMES, storage) for client in clients)
    merged = sum(others, first)
    whole = measure(*together(clients), NAMES, storage)
    np.testing.assert_allclose(merged.counts, whole.counts)
    np.testing.assert_allclose(merged.means, whole.means, rtol=1e-10)
    if storage != "means":
        np.testing.assert_allclose(dense(merged), dense(whole), atol=1e-8)


def test_low_rank_keeps_the_largest_directions_and_the_trace(clients):
    features, labels = together(clients)
    truth = scatter_of(features, labels)
    energies = np.linalg.eigvalsh(truth)[::-1]
    scatter = within_scatter(measure(features, labels, NAMES, "low-rank:rank=4"))
    np.testing.assert_allclose((scatter.rows**2).sum(1), energies[:4], rtol=1e-9)
    assert scatter.residual == pytest.approx(energies[4:].sum())


def test_more_rows_than_dimensions_are_compacted(clients):
    first, *others = (measure(*client, NAMES, "low-rank:rank=12") for client in clients)
    assert len(within_scatter(sum(others, first)).rows) == 12


@pytest.mark.parametrize("storage", ["means", "full", "diagonal"])
def test_a_client_that_leaves_takes_its_samples_along(clients, storage):
    parts = [measure(*client, NAMES, storage) for client in clients]
    left = parts[0] + parts[1] + parts[2] - parts[1]
    rest = measure(*together([clients[0], clients[2]]), NAMES, storage)
    np.testing.assert_allclose(left.counts, rest.counts)
    np.testing.assert_allclose(left.means, rest.means, rtol=1e-9)
    if storage != "means":
        np.testing.assert_allclose(dense(left), dense(rest), atol=1e-8)


def test_weights_count_as_repetitions(clients):
    features, labels = clients[0]
    times = torch.arange(40) % 3 + 1
    weighted = measure(features, labels, NAMES, weights=times.float())
    repeated = measure(features.repeat_interleave(times, 0), labels.repeat_interleave(times), NAMES)
    np.testing.assert_allclose(weighted.means, repeated.means, rtol=1e-10)
    np.testing.assert_allclose(dense(weighted), dense(repeated), atol=1e-8)


def test_what_cannot_be_added_up_is_refused(clients):
    one = measure(*clients[0], NAMES, "low-rank")
    with pytest.raises(DataError, match="second moments"):
        one + measure(*clients[1], NAMES, "diagonal")
    with pytest.raises(DataError, match="backbone"):
        one + measure(*clients[1], NAMES, "low-rank", backbone="another")
    with pytest.raises(DataError, match="class_names"):
        one + measure(*clients[1], ("x", "y", "z"), "low-rank")
    with pytest.raises(DataError, match="subtracted"):
        one - one
    with pytest.raises(DataError, match="more samples"):
        measure(*clients[0], NAMES) - measure(*clients[1], NAMES) - measure(*clients[1], NAMES)


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "8"])
def test_a_rank_is_a_whole_number_from_1(clients, rank):
    with pytest.raises(SettingsError, match="rank must be"):
        measure(*clients[0], NAMES, {"name": "low-rank", "rank": rank})


def test_an_unknown_storage_gets_a_suggestion(clients):
    with pytest.raises(SettingsError, match="did you mean 'low-rank'"):
        measure(*clients[0], NAMES, "lowrank")


@pytest.mark.parametrize(
    ("features", "labels", "weights", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0]), None, "must be"),
        (torch.tensor([[1.0, float("nan")]]), torch.tensor([0]), None, "NaN"),
        (torch.zeros(1, 3), torch.tensor([3]), None, "labels span"),
        (torch.zeros(1, 3), torch.tensor([0]), torch.tensor([0.0]), "positive weights"),
    ],
)
def test_what_are_no_labelled_features_is_refused(features, labels, weights, message):
    with pytest.raises(DataError, match=message):
        measure(features, labels, NAMES, weights=weights)


def test_no_samples_are_sums_too():
    empty = measure(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), NAMES)
    some = measure(torch.ones(1, 4), torch.tensor([1]), NAMES)
    assert isinstance(empty + some, FeatureSums)
    assert (empty + some).means.tolist() == some.means.tolist()
