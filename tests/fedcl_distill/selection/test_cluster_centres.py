"""Truth: scikit-learn's k-means, clusters known beforehand, and brute force over distances."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import KMeansCentres, Random, k_means, select, spread_out, squared_distances


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(count: int, size: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=generator(seed))


@pytest.mark.parametrize("seed", range(3))
def test_k_means_is_that_of_scikit_learn_from_the_same_start(seed: int) -> None:
    points = cloud(200, 4, seed)
    start = points[:6].clone()
    found = k_means(points, start, iterations=100)
    theirs = KMeans(6, init=start.numpy(), n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(points.numpy())
    np.testing.assert_allclose(found.numpy(), theirs.cluster_centers_, atol=1e-4)


def test_an_iteration_never_moves_samples_away_from_their_centres() -> None:
    points, start = cloud(100), cloud(8, seed=1)
    spreads = [float(squared_distances(points, k_means(points, start, n)).amin(dim=1).sum()) for n in range(10)]
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(spreads))
    assert spreads[-1] < 0.9 * spreads[0]


def test_an_empty_cluster_keeps_its_centre() -> None:
    points = cloud(20)
    far = torch.full((1, 3), 100.0)
    assert torch.equal(k_means(points, torch.cat([points[:2], far]), iterations=5)[2:], far)


def test_starts_are_drawn_in_proportion_to_squared_distances() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]])
    hits = torch.zeros(3, 3)
    for seed in range(3000):
        first, second = spread_out(points, 2, generator(seed)).flatten().long().tolist()
        hits[{0: 0, 1: 1, 3: 2}[first], {0: 0, 1: 1, 3: 2}[second]] += 1
    expected = torch.tensor([[0, 1 / 10, 9 / 10], [1 / 5, 0, 4 / 5], [9 / 13, 4 / 13, 0]])
    torch.testing.assert_close(hits / hits.sum(dim=1, keepdim=True), expected, atol=0.05, rtol=0)


def test_each_of_several_clumps_is_stood_for_by_its_middle() -> None:
    middles = 50 * cloud(5, 8, seed=3)
    sizes = [40, 10, 30, 20, 50]
    points = torch.cat([middle + cloud(size, 8, seed=size) for middle, size in zip(middles, sizes, strict=True)])
    clump = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    chosen = KMeansCentres().choose(points, 5, generator(2))
    assert clump[chosen].tolist() == [4, 0, 2, 3, 1]  # the largest first
    for one in chosen.tolist():
        mates = points[clump == clump[one]]
        distances = (mates - mates.mean(dim=0)).square().sum(dim=1)
        assert torch.equal(mates[distances.argmin()], points[one])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.integers(0, 1000))
def test_it_chooses_distinct_samples_whatever_they_are(count: int, more: int, kinds: int, seed: int) -> None:
    points = cloud(count + more, 2, seed) if kinds == 0 else (torch.arange(count + more) % kinds).float()[:, None]
    chosen = KMeansCentres().choose(points, count, generator(seed)).tolist()
    assert len(chosen) == len(set(chosen)) == count
    assert all(0 <= one < len(points) for one in chosen)


def test_every_class_has_its_own_centres_and_the_seed_fixes_them(untouched_global_rng: None) -> None:
    data = blobs(per_class=15)
    chosen = select(data, [2, 0, 4], KMeansCentres(), seed=5)
    assert data.labels[chosen].tolist() == [0, 0, 2, 2, 2, 2]
    assert torch.equal(chosen, select(data, [2, 0, 4], KMeansCentres(), seed=5))


def test_digits_are_nearer_to_centres_than_to_random_samples(digits: Splits) -> None:
    """It would not hold if clusters, or which class they belong to, played no part."""

    def spread(chosen: torch.Tensor) -> float:
        return float(
            sum(
                squared_distances(
                    digits.train.inputs(digits.train.indices_of(label)).flatten(1),
                    digits.train.inputs(chosen[digits.train.labels[chosen] == label]).flatten(1),
                )
                .amin(dim=1)
                .sum()
                for label in range(10)
            )
        )

    random = [spread(select(digits.train, [5] * 10, Random(), seed=seed)) for seed in range(5)]
    assert spread(select(digits.train, [5] * 10, KMeansCentres(), seed=0)) < 0.85 * min(random)


def test_methods_start_from_kmeans_by_name(digits: Splits) -> None:
    chosen = select(digits.train, [2] * 10, KMeansCentres(), seed=derive_seed(0, "initial"))
    method = build_method("dm", architecture="convnet:width=8", init="kmeans")
    start = method.distil(digits.train, 2, seed=0, budget=Budget(steps=0))
    assert start.provenance["init"] == "kmeans"
    assert torch.equal(start.arrays["pixels"], digits.train.inputs(chosen))
    assert torch.equal(start.labels, digits.train.labels[chosen])


def test_a_negative_number_of_iterations_is_refused() -> None:
    with pytest.raises(SettingsError, match="iterations"):
        KMeansCentres(iterations=-1)
