"""Replay: how much is replayed, from what, and that Avalanche really trains on it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive

from builders import blobs
from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.data import Splits
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from strategies.continual import DistilledMemory, Replay, ReservoirMemory, class_incremental

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


class Watching(Replay):
    """Notes every batch as it goes through the model."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.batches = []

    def after_forward(self, strategy, *args, **kwargs):
        assert len(strategy.mb_output) == len(strategy.mb_x) == len(strategy.mb_y) == len(strategy.mb_task_id)
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))


def _memory(kind, byte_budget=1200):
    if kind == "reservoir":
        return ReservoirMemory(byte_budget)
    return DistilledMemory(byte_budget, distiller=build_method(kind))


def _train(plugin, data, experiences=2, batch_size=16):
    benchmark = class_incremental(Splits(data, data), experiences)
    network = Architecture("mlp", {"width": 8}).build(data.sample_shape, data.num_classes, seed=0)
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        train_mb_size=batch_size,
        train_epochs=1,
        plugins=[plugin],
        evaluator=EvaluationPlugin(),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    return strategy


@pytest.mark.parametrize("kind", ["herding", "reservoir"])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("byte_budget", [500, 2500])
def test_every_batch_after_the_first_experience_holds_the_same_share_whatever_the_size(kind, ratio, byte_budget):
    data = blobs((1, 8, 8), classes=4, per_class=40)
    plugin = Watching(_memory(kind, byte_budget), data, ratio=ratio)
    _train(plugin, data)
    first, second = plugin.batches[:5], plugin.batches[5:]
    assert all(set(labels.tolist()) <= {0, 1} for _, labels in first)
    assert [len(labels) for _, labels in first] == [16] * 5
    for _, labels in second:
        counts = Counter(label in (0, 1) for label in labels.tolist())
        assert counts == {False: 16, True: round(16 * ratio)}
    assert plugin.replayed == 5 * round(16 * ratio)


def test_remembered_samples_are_drawn_with_replacement():
    data = blobs((1, 8, 8), classes=4, per_class=40)
    plugin = Watching(_memory("reservoir", 500), data)
    held = {}
    plugin.before_training_epoch = lambda strategy, **_: held.update(now=plugin.memory.recall())
    _train(plugin, data)
    remembered = held["now"]
    assert len(remembered) < 16, "else a batch could do without repeating"
    inputs, labels = plugin.batches[-1]
    distance, nearest = torch.cdist(inputs[16:].flatten(1), remembered.inputs().flatten(1)).min(dim=1)
    assert distance.max() < 0.02  # cdist is exact to this
    assert torch.equal(remembered.labels[nearest], labels[16:])
    everything = torch.cat([inputs[16:] for inputs, _ in plugin.batches[5:]]).flatten(1)
    used = torch.cdist(everything, remembered.inputs().flatten(1)).argmin(dim=1)
    assert len(used.unique()) == len(remembered), "each is drawn at some time"


def test_augmentation_changes_what_is_replayed_and_nothing_else():
    data = blobs((1, 8, 8), classes=4, per_class=40)
    plugin = Watching(_memory("reservoir"), data, augmentation=SiameseAugmentation())
    _train(plugin, data)
    known = data.inputs().flatten(1)
    for inputs, _ in plugin.batches[5:]:
        distance = torch.cdist(inputs.flatten(1), known).min(dim=1).values
        assert distance[:16].max() < 0.02  # cdist is exact to this
        assert (distance[16:] > 0.1).float().mean() > 0.5


def test_distilled_and_reservoir_replay_train_alike_but_for_what_they_hold():
    """Same seed, same current batches, same number of replayed samples: the memory is the only difference."""
    data = blobs((1, 8, 8), classes=4, per_class=40)
    batches = {}
    for kind in ("herding", "reservoir"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            plugin = Watching(_memory(kind), data)
            _train(plugin, data)
        batches[kind] = plugin.batches
    for (a, _), (b, _) in zip(*batches.values(), strict=True):
        assert a.shape == b.shape
        assert torch.equal(a[:16], b[:16])


def test_bytes_and_seconds_are_noted_for_each_experience():
    data = blobs((1, 8, 8), classes=4, per_class=40)
    plugin = Replay(_memory("herding"), data)
    _train(plugin, data, experiences=4)
    assert len(plugin.bytes_kept) == len(plugin.seconds) == 4
    assert plugin.bytes_kept[-1] == plugin.memory.bytes_kept <= 1200
    assert min(plugin.seconds) > 0
    assert len(plugin.cpu_seconds) == 4
    assert min(plugin.cpu_seconds) >= 0
