"""Truth: events counted by hand in a scripted history, and a full sort of distances."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.core_sets import closest_to_mean, forgetting, herding
from fedcl_distill.networks import Architecture
from fedcl_distill.selection import ClosestToMean, Forgetting, forgetting_scores, select

MLP = Architecture("mlp", {"width": 16})


def test_events_are_falls_from_right_to_wrong_and_never_right_counts_most() -> None:
    histories = ["11111", "00001", "10101", "01010", "10000", "00000", "11110"]
    right = torch.tensor([[mark == "1" for mark in history] for history in histories]).T
    assert forgetting_scores(right).tolist() == [0, 0, 2, 2, 1, 5, 1]


def test_the_most_forgotten_come_first_and_ties_are_broken_at_random() -> None:
    scores = torch.tensor([0.0, 5.0, 2.0, 2.0, 2.0, -1.0])[:, None]
    orders = [Forgetting().choose(scores, 6, torch.Generator().manual_seed(seed)).tolist() for seed in range(40)]
    assert all(order[0] == 1 and order[4:] == [0, 5] for order in orders)
    assert len({tuple(order[1:4]) for order in orders}) == 6


def with_mislabelled(count: int = 3) -> tuple[LabelledData, torch.Tensor]:
    """Blobs of which the first ``count`` are called by the class of others."""
    data = blobs(per_class=40)
    labels = data.labels.clone()
    labels[:count] = 1
    return LabelledData.from_tensors(data.samples, labels), torch.arange(count)


def test_mislabelled_samples_are_forgotten_most() -> None:
    data, wrong = with_mislabelled()
    criterion = Forgetting(epochs=8, architecture=MLP, batch_size=16)
    assert set(wrong.tolist()) <= set(select(data, [0, 6, 0], criterion, seed=0).tolist())


def test_only_candidates_are_looked_at_and_others_fill_up(untouched_global_rng: None) -> None:
    data = blobs(per_class=10)
    criterion = Forgetting(epochs=2, candidates_per_class=4, architecture=MLP)
    scores = criterion.embed(data, seed=0)
    assert scores.shape == (30, 1)
    assert [(scores[data.labels == label] >= 0).sum().item() for label in range(3)] == [4, 4, 4]
    assert torch.equal(scores, criterion.embed(data, seed=0))
    assert not torch.equal(scores >= 0, criterion.embed(data, seed=1) >= 0)
    assert len(select(data, [10, 5, 0], criterion, seed=0).unique()) == 15


def test_closest_to_mean_is_the_head_of_a_full_sort() -> None:
    embeddings = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    gaps = [float((row - embeddings.mean(0)).norm()) for row in embeddings]
    chosen = ClosestToMean().choose(embeddings, 5, torch.Generator()).tolist()
    assert chosen == sorted(range(12), key=gaps.__getitem__)[:5]
    assert ClosestToMean().choose(torch.zeros(4, 2), 4, torch.Generator()).tolist() == [0, 1, 2, 3]


def test_presets_take_embeddings_by_name() -> None:
    data = blobs(per_class=6)
    for method in (closest_to_mean(embedding="trained"), closest_to_mean(), herding(embedding="inputs")):
        assert method.distil(data, 2, seed=0).class_counts.tolist() == [2, 2, 2]
    with pytest.raises(SettingsError, match="unknown embedding"):
        herding(embedding="teached")


def test_the_preset_works_on_images_and_features() -> None:
    for shape in ((3, 8, 12), (5,)):
        chosen = forgetting(epochs=2).distil(blobs(shape=shape, per_class=4), [1, 3, 0], seed=0)
        assert chosen.class_counts.tolist() == [1, 3, 0]


@pytest.mark.parametrize("change", [{"epochs": 1}, {"candidates_per_class": 0}])
def test_impossible_settings_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        Forgetting(**change)  # type: ignore[arg-type]
