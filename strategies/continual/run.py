"""One life of a model: a stream of experiences under Avalanche, judged after each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import JointTraining, Naive
from torch import nn

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.engine import Budget
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.seeding import derive_seed, isolated_rng
from fedcl_distill.training import accuracy
from strategies.continual.balance import BalancedCrossEntropy
from strategies.continual.benchmark import class_incremental
from strategies.continual.distilled_memory import DistilledMemory
from strategies.continual.memory import Memory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.replay import Replay
from strategies.continual.reservoir_memory import ReservoirMemory
from strategies.continual.result import ContinualResult
from strategies.continual.settings import ContinualSettings

OnStage = Callable[[int, tuple[float, ...]], None]


def run_stream(settings: ContinualSettings, splits: Splits, on_stage: OnStage | None = None) -> ContinualResult:
    """Train through the stream and return what was measured.

    Args:
        settings: of the run.
        splits: the data.
        on_stage: called after each experience with its index and the accuracies on all experiences.

    Raises:
        SettingsError: settings that do not fit each other or the data.
        DataError: a class without training samples.
    """
    benchmark = class_incremental(splits, settings.experiences, order_seed=settings.order_seed)
    groups = [list(experience.classes_in_this_experience) for experience in benchmark.train_stream]
    tests = [_only(splits.test, group) for group in groups]
    network = _network(settings, splits.train)
    replay = _replay(settings, splits.train)
    rows: list[tuple[float, ...]] = []
    seconds: list[float] = []
    with isolated_rng(derive_seed(settings.seed, "avalanche")), _without_deprecations():
        strategy = _strategy(settings, network, replay)
        for stage in _stages(settings, benchmark):
            started = time.monotonic()
            strategy.train(stage)
            seconds.append(time.monotonic() - started)
            rows.append(tuple(accuracy(network, test) for test in tests))
            if on_stage is not None:
                on_stage(len(rows) - 1, rows[-1])
    memory_seconds = replay.seconds if replay else [0.0] * len(seconds)
    return ContinualResult(
        matrix=AccuracyMatrix(tuple(rows)),
        test_accuracy=accuracy(network, splits.test),
        classes=tuple(tuple(splits.train.class_names[label] for label in sorted(group)) for group in groups),
        bytes_kept=tuple(replay.bytes_kept) if replay else (0,) * len(rows),
        train_seconds=tuple(whole - part for whole, part in zip(seconds, memory_seconds, strict=True)),
        memory_seconds=tuple(memory_seconds),
        replayed=replay.replayed if replay else 0,
        memory=replay.memory.recall() if replay else None,
    )


def build_memory(settings: ContinualSettings, like: LabelledData) -> Memory:
    """The memory that ``settings`` ask for, empty.

    Raises:
        SettingsError: the method or one of its settings is unknown.
    """
    seed = derive_seed(settings.seed, "memory")
    budget = memory_bytes(settings, like)
    if settings.strategy == "reservoir":
        return ReservoirMemory(budget, settings.bits, seed=seed)
    return DistilledMemory(
        budget,
        settings.bits,
        distiller=build_method(settings.method, **settings.method_settings),
        budget=Budget.if_given(settings.distil_steps, settings.distil_seconds),
        seed=seed,
        redistil=settings.redistil,
    )


def memory_bytes(settings: ContinualSettings, like: LabelledData) -> int:
    """The byte budget: as given, or what ``images_per_class`` samples of every class take."""
    if settings.byte_budget is not None:
        return settings.byte_budget
    return bytes_of_counts([settings.images_per_class] * like.num_classes, like, settings.bits)


def _replay(settings: ContinualSettings, like: LabelledData) -> Replay | None:
    if settings.strategy not in ("reservoir", "distilled"):
        return None
    return Replay(
        build_memory(settings, like),
        like,
        ratio=settings.replay_ratio,
        augmentation=augmentation_for(like) if settings.replay_augment else None,
        seed=derive_seed(settings.seed, "replay"),
    )


def _network(settings: ContinualSettings, like: LabelledData) -> Network:
    text = settings.architecture
    architecture = default_architecture(like.sample_shape) if text is None else Architecture.parse(text)
    seed = derive_seed(settings.seed, "model")
    return architecture.build(like.sample_shape, like.num_classes, seed=seed, device=settings.device)


def _strategy(settings: ContinualSettings, network: Network, replay: Replay | None) -> Any:
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    template = JointTraining if settings.strategy == "joint" else Naive
    return template(
        model=network,
        optimizer=optimiser,
        criterion=BalancedCrossEntropy() if settings.balanced else nn.CrossEntropyLoss(),
        train_mb_size=settings.batch_size,
        train_epochs=settings.epochs,
        device=settings.device,
        plugins=[replay] if replay else [],
        evaluator=EvaluationPlugin(),  # accuracies come from whole tensors, which is much faster
    )


def _stages(settings: ContinualSettings, benchmark: Any) -> list[Any]:
    return [benchmark.train_stream] if settings.strategy == "joint" else list(benchmark.train_stream)


def _only(data: LabelledData, labels: list[int]) -> LabelledData:
    return data.subset(torch.isin(data.labels, torch.tensor(labels)).nonzero().flatten())


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Avalanche 0.6 warns about its own use of its older interfaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
