"""Fine-tuning on the memory: what it trains on, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.training import TrainConfig
from strategies.continual import ContinualSettings, Replay, ReservoirMemory, run_stream
from strategies.continual.replay import FineTuning

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

_RECIPE = TrainConfig(3, learning_rate=0.05, batch_size=8, schedule="cosine")


def _remembering(data):
    memory = ReservoirMemory(10**6)
    memory.add(data)
    return Replay(memory, data)


def _network(data):
    return Architecture("mlp", {"width": 8}).build(data.sample_shape, data.num_classes, seed=0)


def _finetuned(data, seed=0):
    network = _network(data)
    FineTuning(_remembering(data), _RECIPE, seed=seed).after_training_exp(SimpleNamespace(model=network))
    return network


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_it_trains_on_what_is_remembered_and_a_seed_fixes_it():
    data = blobs((1, 4, 4), classes=3, per_class=10)
    network = _finetuned(data)
    assert not _same(network, _network(data))
    assert _same(network, _finetuned(data))
    assert not _same(network, _finetuned(data, seed=1))


def test_every_class_is_seen_as_often_as_the_others_however_many_samples_it_has():
    whole = blobs((1, 4, 4), classes=2, per_class=40)
    rows = torch.cat([torch.nonzero(whole.labels == 0).flatten(), torch.nonzero(whole.labels == 1).flatten()[:10]])
    data = whole.subset(rows)
    seen = []
    network = _network(data)
    network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].clone()))
    FineTuning(_remembering(data), _RECIPE, seed=0).after_training_exp(SimpleNamespace(model=network))
    known = data.inputs().flatten(1)
    labels = data.labels[torch.cdist(torch.cat(seen).flatten(1), known).argmin(dim=1)]
    assert torch.bincount(labels).tolist() == [75, 75]


def test_nothing_remembered_leaves_the_model():
    data = blobs((1, 4, 4), classes=2, per_class=4)
    network = _network(data)
    tuning = FineTuning(Replay(ReservoirMemory(10**6), data), _RECIPE, seed=0)
    tuning.after_training_exp(SimpleNamespace(model=network))
    assert _same(network, _network(data))


def test_a_stream_fine_tunes_after_it_took_each_experience_in(monkeypatch):
    data = blobs((1, 8, 8), classes=4, per_class=12)
    held, own = [], FineTuning.after_training_exp

    def watched(self, strategy, *args, **kwargs):
        held.append(self._replay.memory.recall().hard_labels.unique().tolist())
        own(self, strategy, *args, **kwargs)

    monkeypatch.setattr(FineTuning, "after_training_exp", watched)
    settings = ContinualSettings(strategy="balanced", experiences=2, images_per_class=3, architecture="mlp:width=8")
    plain = run_stream(settings, Splits(data, data))
    assert held == [], "off unless asked for"
    tuned = run_stream(replace(settings, finetune_epochs=2), Splits(data, data))
    assert held == [[0, 1], [0, 1, 2, 3]]
    assert tuned.bytes_kept == plain.bytes_kept


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(SettingsError, match="finetune_epochs must be"):
        ContinualSettings(finetune_epochs=-1)
    with pytest.raises(SettingsError, match="online"):
        ContinualSettings(strategy="reservoir", online=True, finetune_epochs=1)
