"""One life of a model: a stream of experiences under Avalanche, judged after each."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from fedcl_distill.checkpoint import fingerprint, load_checkpoint, restoring, save_checkpoint
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.files import remove
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.seeding import derive_seed, isolated_rng
from fedcl_distill.training import accuracy
from strategies.continual.life import StreamTrainer, without_deprecations
from strategies.continual.memories.base import Memory
from strategies.continual.memories.named import memory_bytes, named_memory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.registry import build_plan
from strategies.continual.replay.balance import BalancedCrossEntropy
from strategies.continual.replay.losses import WithinTask
from strategies.continual.result import ContinualResult
from strategies.continual.settings import ContinualSettings
from strategies.continual.setup import Setup
from strategies.continual.streams.avalanche_data import labelled_data
from strategies.continual.streams.benchmark import class_incremental, domain_incremental, task_incremental
from strategies.continual.streams.within import Within

OnStage = Callable[[int, tuple[float, ...]], None]


def run_stream(
    settings: ContinualSettings,
    splits: Splits,
    on_stage: OnStage | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> ContinualResult:
    """Train through the stream and return what was measured.

    Args:
        settings: of the run.
        splits: the data.
        on_stage: called after each experience with its index and the accuracies on all experiences.
        checkpoint: file to continue from if it is there, to the same bits, and to save to after each experience;
            removed when done.

    Raises:
        SettingsError: settings that do not fit each other or the data.
        DataError: a class without training samples.
        CheckpointError: ``checkpoint`` is damaged or belongs to another run.
    """
    benchmark = build_benchmark(settings, splits)
    tests = [labelled_data(experience.dataset, splits.test) for experience in benchmark.test_stream]
    tasks = [sorted(set(test.labels.tolist())) for test in tests]
    network = _network(settings, splits.train)
    plan = build_plan(Setup(settings, splits.train, network, _loss(settings, tasks)))
    life = StreamTrainer(settings, network, plan)
    allowed = tasks if settings.scenario == "task" else None
    untrained = _accuracies(network, tests, allowed)
    stages = [benchmark.train_stream] if plan.at_once else list(benchmark.train_stream)
    name = _name(settings, splits) if checkpoint is not None else ""
    with isolated_rng(derive_seed(settings.seed, "avalanche")), without_deprecations():
        saved = None if checkpoint is None else load_checkpoint(checkpoint, name)
        if checkpoint is not None and saved is not None:
            with restoring(checkpoint):
                life.restore(saved, stages[: len(saved["rows"])])
        for stage in stages[len(life.rows) :]:
            life.learn(stage)
            classifier = plan.classifier() if plan.classifier else network
            life.rows.append(_accuracies(classifier, tests, allowed))
            if checkpoint is not None:
                save_checkpoint(checkpoint, name, life.state())
            if on_stage is not None:
                on_stage(len(life.rows) - 1, life.rows[-1])
    if checkpoint is not None:
        remove(checkpoint)
    return ContinualResult(
        matrix=AccuracyMatrix(tuple(life.rows), untrained),
        test_accuracy=_together(life.rows[-1], tests),
        classes=tuple(tuple(splits.train.class_names[label] for label in task) for task in tasks),
        bytes_kept=tuple(life.bytes_kept),
        train_seconds=tuple(life.train_seconds),
        memory_seconds=tuple(life.memory_seconds),
        memory_cpu_seconds=tuple(life.memory_cpu_seconds),
        replayed=plan.replay.replayed if plan.replay else 0,
        memory=plan.replay.memory.recall() if plan.replay else None,
    )


def build_benchmark(settings: ContinualSettings, splits: Splits) -> Any:
    """The stream that the settings' scenario names, as an Avalanche benchmark.

    Raises:
        SettingsError, DataError: settings that do not fit the data.
    """
    if settings.scenario == "domain":
        return domain_incremental(splits, settings.experiences, domain=settings.domain)
    by_classes = task_incremental if settings.scenario == "task" else class_incremental
    return by_classes(splits, settings.experiences, order_seed=settings.order_seed)


def build_memory(settings: ContinualSettings, like: LabelledData) -> Memory:
    """The memory that ``settings.strategy`` names, empty.

    Raises:
        SettingsError: the strategy is no memory, or the method or one of its settings is unknown.
    """
    return named_memory(settings.strategy, settings, memory_bytes(settings, like))


def _network(settings: ContinualSettings, like: LabelledData) -> Network:
    text = settings.architecture
    architecture = default_architecture(like.sample_shape) if text is None else Architecture.parse(text)
    seed = derive_seed(settings.seed, "model")
    return architecture.build(like.sample_shape, like.num_classes, seed=seed, device=settings.device)


def _loss(settings: ContinualSettings, tasks: list[list[int]]) -> nn.Module:
    loss = BalancedCrossEntropy() if settings.balanced else nn.CrossEntropyLoss()
    return WithinTask(loss, tasks) if settings.scenario == "task" else loss


def _accuracies(classifier: nn.Module, tests: list[LabelledData], allowed: list[list[int]] | None) -> tuple[float, ...]:
    if allowed is None:
        return tuple(accuracy(classifier, test) for test in tests)
    return tuple(accuracy(Within(classifier, task), test) for test, task in zip(tests, allowed, strict=True))


def _together(accuracies: tuple[float, ...], tests: list[LabelledData]) -> float:
    sizes = [len(test) for test in tests]
    return sum(one * size for one, size in zip(accuracies, sizes, strict=True)) / sum(sizes)


def _name(settings: ContinualSettings, splits: Splits) -> str:
    return fingerprint(splits.train, {"settings": settings.as_record(), "test": fingerprint(splits.test, "")})
