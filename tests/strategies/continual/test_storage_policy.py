"""A memory behind Avalanche's own replay plugin."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Naive

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from strategies.continual import DistilledMemory, MemoryBuffer, ReservoirMemory, class_incremental, inputs_dataset

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

DATA = blobs((1, 8, 8), classes=4, per_class=40)


def _policy(kind="herding"):
    memory = ReservoirMemory(1500) if kind == "reservoir" else DistilledMemory(1500, distiller=build_method(kind))
    return MemoryBuffer(memory, mem_size=20)


def _benchmark(style):
    if style == "nc":
        return class_incremental(Splits(DATA, DATA), 2)
    dataset = as_classification_dataset(inputs_dataset(DATA))
    return class_incremental_benchmark({"train": dataset, "test": dataset}, num_experiences=2)


class Counting(ReplayPlugin):
    """Notes the labels of every batch."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.labels = []

    def after_forward(self, strategy, **kwargs):
        self.labels.append(strategy.mb_y.clone())


@pytest.mark.parametrize("style", ["nc", "new"])
@pytest.mark.parametrize("kind", ["herding", "reservoir"])
def test_buffer_items_have_the_parts_and_types_of_the_experience(style, kind):
    policy = _policy(kind)
    experience = _benchmark(style).train_stream[0]
    policy.post_adapt(None, experience)
    kept, real = policy.buffer[0], experience.dataset[0]
    assert len(policy.buffer) == len(policy.memory.recall())
    assert [type(part) for part in kept] == [type(part) for part in real]
    assert kept[0].dtype == real[0].dtype
    assert kept[0].shape == real[0].shape


@pytest.mark.parametrize("style", ["nc", "new"])
@pytest.mark.parametrize("kind", ["herding", "reservoir"])
def test_avalanche_replays_it(style, kind):
    policy = _policy(kind)
    plugin = Counting(mem_size=policy.max_size, storage_policy=policy)
    network = Architecture("mlp", {"width": 8}).build((1, 8, 8), 4, seed=0)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    strategy = Naive(
        model=network, optimizer=optimiser, train_mb_size=8, plugins=[plugin], evaluator=EvaluationPlugin()
    )
    benchmark = _benchmark(style)
    old = set(benchmark.train_stream[0].classes_in_this_experience)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert all(set(labels.tolist()) <= old for labels in plugin.labels[:10])
    assert all(set(labels.tolist()) & old for labels in plugin.labels[10:]), "old classes in every later batch"
    assert set(policy.memory.recall().labels.tolist()) == {0, 1, 2, 3}


def test_the_memory_is_bounded_in_bytes_and_says_so():
    policy = _policy()
    policy.resize(None, 20)
    with pytest.raises(SettingsError, match="from 20 to 10"):
        policy.resize(None, 10)
