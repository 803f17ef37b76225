"""Truth: brute force over all subsets, and the greedy definitions written out plainly."""

from __future__ import annotations

import itertools

import pytest
import torch

from builders import blobs
from fedcl_distill.errors import DataError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.selection import Herding, KCenter, Random, TrainedEmbedding, select
from fedcl_distill.training import TrainConfig


def points(count: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_greedy_choice_at_every_step(seed: int) -> None:
    embeddings = points(seed=seed)
    chosen = Herding().choose(embeddings, 5, torch.Generator()).tolist()
    for step in range(5):
        before = embeddings[chosen[:step]].sum(0)
        gaps = {
            i: (embeddings.mean(0) - (before + embeddings[i]) / (step + 1)).norm().item()
            for i in range(len(embeddings))
            if i not in chosen[:step]
        }
        assert gaps[chosen[step]] == pytest.approx(min(gaps.values()), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_k_center_is_within_twice_the_best_radius(seed: int) -> None:
    embeddings = points(seed=seed)
    distances = torch.cdist(embeddings, embeddings)

    def radius(centres: tuple[int, ...]) -> float:
        return float(distances[list(centres)].min(0).values.max())

    chosen = tuple(KCenter().choose(embeddings, 3, torch.Generator()).tolist())
    best = min(radius(centres) for centres in itertools.combinations(range(len(embeddings)), 3))
    assert len(set(chosen)) == 3
    assert radius(chosen) <= 2 * best + 1e-6  # Gonzalez 1985


def test_choosing_all_gives_all_even_with_doubles() -> None:
    doubles = torch.zeros(4, 2)
    for criterion in (Herding(), KCenter(), Random()):
        assert sorted(criterion.choose(doubles, 4, torch.Generator()).tolist()) == [0, 1, 2, 3]


def test_random_is_uniform_and_reproducible(untouched_global_rng: None) -> None:
    data = blobs(classes=2, per_class=10)
    hits = torch.zeros(20)
    for seed in range(1500):
        hits[select(data, [3, 3], Random(), seed=seed)] += 1
    assert ((hits - 450) ** 2 / 450).sum() < 50  # 99.9th percentile for 18 degrees of freedom is 42
    assert torch.equal(select(data, [3, 3], Random(), seed=1), select(data, [3, 3], Random(), seed=1))


def test_selected_samples_are_real_ones_of_their_class() -> None:
    data = blobs(per_class=8)
    for name in ("random", "herding", "k-center"):
        chosen = build_method(name).distil(data, [2, 0, 3], seed=0)
        assert chosen.labels.tolist() == [0, 0, 2, 2, 2]
        pixels = (chosen.samples() * 255).round().to(torch.uint8)
        for image, label in zip(pixels, chosen.labels, strict=True):
            assert any(torch.equal(image, real) for real in data.samples[data.labels == label])


def test_small_classes_give_what_they_have_and_empty_ones_are_refused() -> None:
    data = blobs(per_class=4).subset(torch.tensor([0, 1, 4, 5, 6]))  # class 2 has none
    with pytest.raises(DataError, match="no samples of class 2"):
        build_method("random").distil(data, 3, seed=0)
    chosen = build_method("random").distil(data, 3, seed=0, absent_classes="skip")
    assert chosen.class_counts.tolist() == [2, 3, 0]


def test_a_trained_embedding_separates_classes() -> None:
    data = blobs(per_class=30)
    embedding = TrainedEmbedding(Architecture("mlp", {"width": 16}), TrainConfig(epochs=20, batch_size=16))
    vectors = embedding.embed(data, seed=0)
    means = torch.stack([vectors[data.labels == label].mean(0) for label in range(3)])
    nearest = torch.cdist(vectors, means).argmin(1)
    assert vectors.shape == (90, 16)
    assert (nearest == data.labels).float().mean() > 0.95
