"""One life of a model: a stream of experiences under Avalanche, judged after each."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Cumulative, JointTraining, Naive
from torch import nn

from fedcl_distill.checkpoint import fingerprint, load_checkpoint, restoring, save_checkpoint
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.files import remove
from fedcl_distill.networks import ArchitectureLike, Network, architecture_for
from fedcl_distill.optimisers import Optimiser, build_optimiser
from fedcl_distill.registry import describe
from fedcl_distill.seeding import derive_seed, isolated_rng
from fedcl_distill.training import accuracy
from strategies.continual.benchmarks import (
    class_incremental,
    domain_incremental,
    in_mini_batches,
    labelled_data,
    task_incremental,
)
from strategies.continual.losses import BalancedCrossEntropy, MaskedClassifier, MaskedLoss
from strategies.continual.memory import Memory
from strategies.continual.memory_registry import memory_bytes, named_memory
from strategies.continual.registry import Setup, StrategyParts, build_strategy
from strategies.continual.settings import AccuracyMatrix, ContinualResult, ContinualSettings


class StreamTrainer:
    """Learns one experience after the other.

    Random numbers come from torch's global generator, as Avalanche has it: use it under ``isolated_rng``.

    Attributes:
        rows: accuracies after each experience; whoever measures them appends here.
        bytes_kept: after each experience.
        train_seconds, memory_seconds, memory_cpu_seconds: of each experience; the last by the processor, not the wall.
    """

    def __init__(
        self,
        settings: ContinualSettings,
        network: Network,
        plan: StrategyParts,
        optimiser: Optimiser | str | Mapping[str, Any] | None = None,
    ) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.bytes_kept: list[int] = []
        self.train_seconds: list[float] = []
        self.memory_seconds: list[float] = []
        self.memory_cpu_seconds: list[float] = []
        self._settings = settings
        self._network = network
        self._plan = plan
        self._seen = 0
        self._strategy = avalanche_strategy(settings, network, plan, optimiser)

    def learn(self, experience: Any) -> None:
        """Train on an experience, or on the whole stream where the strategy does that."""
        started, before = time.monotonic(), self._spent_on_memory()
        seed = derive_seed(self._settings.seed, "order", len(self.rows))
        size = self._settings.batch_size
        online = self._settings.online
        self._strategy.train(in_mini_batches(experience, size, seed=seed) if online else experience)
        spent, spent_by_processor = (now - then for now, then in zip(self._spent_on_memory(), before, strict=True))
        self.memory_seconds.append(spent)
        self.memory_cpu_seconds.append(spent_by_processor)
        self.train_seconds.append(time.monotonic() - started - spent)
        self._seen += samples_in(experience)
        self.bytes_kept.append(self._plan.bytes_kept + self._seen * self._plan.sample_bytes)

    def state(self) -> dict[str, Any]:
        """Everything that the next experience depends on, and what was measured."""
        return {
            "rows": [list(row) for row in self.rows],
            "bytes_kept": self.bytes_kept,
            "train_seconds": self.train_seconds,
            "memory_seconds": self.memory_seconds,
            "memory_cpu_seconds": self.memory_cpu_seconds,
            "network": self._network.state_dict(),
            "optimiser": self._strategy.optimizer.state_dict(),
            "clock": {name: value for name, value in vars(self._strategy.clock).items() if type(value) is int},
            "generator": torch.random.get_rng_state(),
            "replay": None if self._plan.replay is None else self._plan.replay.state(),
            "stateful": [keeper.state() for keeper in self._plan.stateful],
        }

    def restore(self, state: dict[str, Any], learned: Sequence[Any]) -> None:
        """Go on from another life's :meth:`state`, with the same settings, after the experiences it has ``learned``."""
        self.rows = [tuple(row) for row in state["rows"]]
        self.bytes_kept = state["bytes_kept"]
        self.train_seconds, self.memory_seconds = state["train_seconds"], state["memory_seconds"]
        self.memory_cpu_seconds = state["memory_cpu_seconds"]
        self._network.load_state_dict(state["network"])
        # Avalanche wipes the optimiser's state when it first meets the model: let it do so now.
        self._strategy.make_optimizer(reset_optimizer_state=True)
        self._strategy.optimizer.load_state_dict(state["optimiser"])
        vars(self._strategy.clock).update(state["clock"])
        torch.random.set_rng_state(state["generator"])
        if self._plan.replay is not None:
            self._plan.replay.restore(state["replay"])
        self._seen = sum(map(samples_in, learned))
        if isinstance(self._strategy, Cumulative):
            self._strategy.dataset = concat_datasets([experience.dataset for experience in learned])
        for keeper, one in zip(self._plan.stateful, state["stateful"], strict=True):
            keeper.restore(one, self._network)

    def _spent_on_memory(self) -> tuple[float, float]:
        """Seconds so far, by the wall and by the processor."""
        replay = self._plan.replay
        return (sum(replay.seconds), sum(replay.cpu_seconds)) if replay else (0.0, 0.0)


def samples_in(stage: Any) -> int:
    """How many samples there are in an experience, or in all of a stream."""
    return sum(len(one.dataset) for one in (stage if isinstance(stage, Iterable) else [stage]))


def avalanche_strategy(
    settings: ContinualSettings,
    network: Network,
    plan: StrategyParts,
    optimiser: Optimiser | str | Mapping[str, Any] | None = None,
) -> Any:
    """Plain training by Avalanche, with what ``plan`` adds to it; SGD with the settings' rates, or ``optimiser``."""
    weights = list(network.parameters())
    sgd = partial(
        torch.optim.SGD, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    return _TEMPLATES[plan.template](
        model=network,
        optimizer=build_optimiser(sgd if optimiser is None else optimiser, weights),
        criterion=plan.loss,
        train_mb_size=settings.batch_size,
        train_epochs=(1 if settings.online else settings.epochs) if plan.trains else 0,
        device=settings.device,
        plugins=plan.plugins,
        evaluator=EvaluationPlugin(),  # accuracies come from whole tensors, which is much faster
    )


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Avalanche 0.6 warns about its own use of its older interfaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


_TEMPLATES = {"naive": Naive, "cumulative": Cumulative, "joint": JointTraining}

OnStage = Callable[[int, tuple[float, ...]], None]


def run_stream(
    settings: ContinualSettings,
    splits: Splits,
    on_stage: OnStage | None = None,
    *,
    architecture: ArchitectureLike | None = None,
    optimiser: Optimiser | str | Mapping[str, Any] | None = None,
    criterion: nn.Module | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> ContinualResult:
    """Train through the stream and return what was measured.

    Args:
        settings: of the run.
        splits: the data.
        architecture: of the model, in place of the settings': a name, a module class, or what makes a module.
        optimiser: in place of SGD with the settings' rates: any callable that takes parameters, such as
            ``partial(torch.optim.Adam, lr=1e-3)``, or a registered one.
        criterion: the mean loss of logits (n, classes) under int64 (n,) labels, or probabilities where the memory has
            them, in place of the balanced cross entropy.
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
    network = _network(settings, splits.train, architecture)
    plan = build_strategy(Setup(settings, splits.train, network, _loss(settings, tasks, criterion)))
    life = StreamTrainer(settings, network, plan, optimiser)
    allowed = tasks if settings.scenario == "task" else None
    untrained = _accuracies(network, tests, allowed)
    stages = [benchmark.train_stream] if plan.at_once else list(benchmark.train_stream)
    own = {"architecture": architecture, "optimiser": optimiser, "criterion": criterion}
    name = _name(settings, splits, own) if checkpoint is not None else ""
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


def _network(settings: ContinualSettings, like: LabelledData, own: ArchitectureLike | None) -> Network:
    architecture = architecture_for(settings.architecture if own is None else own, like.sample_shape)
    seed = derive_seed(settings.seed, "model")
    return architecture.build(like.sample_shape, like.num_classes, seed=seed, device=settings.device)


def _loss(settings: ContinualSettings, tasks: list[list[int]], own: nn.Module | None) -> nn.Module:
    loss = own or (BalancedCrossEntropy() if settings.balanced else nn.CrossEntropyLoss())
    return MaskedLoss(loss, tasks) if settings.scenario == "task" else loss


def _accuracies(classifier: nn.Module, tests: list[LabelledData], allowed: list[list[int]] | None) -> tuple[float, ...]:
    if allowed is None:
        return tuple(accuracy(classifier, test) for test in tests)
    return tuple(accuracy(MaskedClassifier(classifier, task), test) for test, task in zip(tests, allowed, strict=True))


def _together(accuracies: tuple[float, ...], tests: list[LabelledData]) -> float:
    sizes = [len(test) for test in tests]
    return sum(one * size for one, size in zip(accuracies, sizes, strict=True)) / sum(sizes)


def _name(settings: ContinualSettings, splits: Splits, own: Mapping[str, Any]) -> str:
    chosen = {name: describe(one) for name, one in own.items() if one is not None}
    named = {"settings": settings.as_record(), "test": fingerprint(splits.test, "")}
    return fingerprint(splits.train, named | ({"own": chosen} if chosen else {}))
