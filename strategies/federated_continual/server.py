"""The server's side of a run, the same on every grid, and what it reached."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from fedcl_distill.checkpoint import fingerprint, load_checkpoint, restoring, save_checkpoint
from fedcl_distill.data import LabelledData, as_labelled
from fedcl_distill.errors import SettingsError
from fedcl_distill.files import remove
from fedcl_distill.networks import Network
from fedcl_distill.registry import describe
from fedcl_distill.training import accuracy
from strategies.continual.settings import AccuracyMatrix
from strategies.federated.aggregation import Rejection
from strategies.federated.answers import weights_of
from strategies.federated.grid import ByteLedger, Entry, MeteredGrid
from strategies.federated.run import RunOptions, Strategy, make_options
from strategies.federated.strategy import FederatedStrategy
from strategies.federated_continual.memories import STRATEGIES, NoMemory, ServerMemory
from strategies.federated_continual.stages import AvailabilityPoll, StagedStrategy


@dataclass(frozen=True)
class StageResult:
    """The state after a stage.

    Attributes:
        stage: from 0.
        accuracies: of the global model on the test data of every experience, in [0, 1].
        asked: clients that had something new.
        bytes_up, bytes_down: sent by all nodes, and to all nodes, in all stages so far.
        server_bytes: that the server keeps beside the model.
        client_bytes: that clients said they keep, all together.
        client_seconds: which the nodes behind used answers say they worked in this stage, together.
        slowest_client_seconds: the longest of each round, summed: what it takes where all nodes work at once.
        server_seconds: of the server's own work in this stage, evaluation not included.
    """

    stage: int
    accuracies: tuple[float, ...]
    asked: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    server_bytes: int = 0
    client_bytes: int = 0
    client_seconds: float = 0.0
    slowest_client_seconds: float = 0.0
    server_seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            name: round(value, 3) if name.endswith("seconds") else value for name, value in asdict(self).items()
        } | {"accuracies": list(self.accuracies)}


@dataclass(frozen=True)
class FederatedContinualResult:
    """A run.

    Attributes:
        stages: in their order.
        learned_at: the stage at which each experience was first learned from; the number of stages if none was.
        untrained: accuracies of the fresh model.
        classes: names of the classes of each experience.
        rejections: answers that were not used.
        ledger: every message's bytes.
        weights: of the final global model.
        memory_counts: remembered samples of each class, in the end; empty where the server keeps none.
    """

    stages: tuple[StageResult, ...]
    learned_at: tuple[int, ...]
    untrained: tuple[float, ...]
    classes: tuple[tuple[str, ...], ...]
    rejections: tuple[Rejection, ...]
    ledger: ByteLedger = field(repr=False)
    weights: ArrayRecord = field(repr=False)
    memory_counts: tuple[int, ...] = ()

    @property
    def matrix(self) -> AccuracyMatrix:
        """Global accuracy on every experience after every stage."""
        return AccuracyMatrix(tuple(one.accuracies for one in self.stages), self.untrained, self.learned_at)

    def as_record(self) -> dict[str, Any]:
        """JSON values: the last stage's accuracy and bytes on top, seconds summed over all stages."""
        matrix, last = self.matrix, self.stages[-1]
        seconds = ("client_seconds", "slowest_client_seconds", "server_seconds")
        return {
            "matrix": [list(row) for row in matrix.rows],
            "learned_at": list(self.learned_at),
            "average_accuracy": matrix.average_accuracy,
            "average_by_stage": list(matrix.average_by_stage),
            "forgetting": matrix.forgetting,
            "backward_transfer": matrix.backward_transfer,
            "forward_transfer": matrix.forward_transfer,
            "classes": [list(names) for names in self.classes],
            "bytes_up": last.bytes_up,
            "bytes_down": last.bytes_down,
            "server_bytes": last.server_bytes,
            "client_bytes": last.client_bytes,
            "memory_counts": list(self.memory_counts),
            **{name: round(sum(getattr(one, name) for one in self.stages), 3) for name in seconds},
            "stages": [one.as_record() for one in self.stages],
            "bytes_by_client": self.ledger.as_record(),
            "rejections": [one.as_record() for one in self.rejections],
        }


OnStage = Callable[[StageResult], None]


def run_server(
    grid: Grid,
    strategy: Strategy,
    *,
    tests: Sequence[Any],
    stages: int,
    on_stage: OnStage | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **options: Any,
) -> FederatedContinualResult:
    """Run ``strategy`` on ``grid`` through all stages, and test the global model after each.

    Args:
        grid: how nodes are reached.
        strategy: what happens within each stage: an object, or its plain form.
        tests: the server's own data for evaluation, of each experience, ``LabelledData`` or any map-style data sets;
            their classes, shape and normalisation are the run's.
        stages: until the last client has lived through its last experience.
        on_stage: called after each stage.
        checkpoint: file to continue from if it is there, to the same bits, and to save to after each stage; removed
            when done. Clients that keep a memory make it anew where they lost it.
        options: fields of :class:`~strategies.federated.RunOptions`; ``rounds`` are those of each stage. With a quorum
            of 0, a stage whose answers cannot be used leaves the model as it is.

    Raises:
        SettingsError: the settings do not fit each other or the data.
        QuorumError: too few nodes, or too few valid answers in some round.
        DivergenceError: distillation or training on the server diverged.
        CheckpointError: ``checkpoint`` is damaged or belongs to another run.
        StorageError: it could not be written.
    """
    data, run = [as_labelled(test) for test in tests], make_options(options)
    if not data or stages < 1:
        raise SettingsError(f"there must be an experience and a stage at least, got {len(data)} and {stages}")
    if run.spec is not None:
        raise SettingsError("in stages, the server's data say what data look like: spec must be None")
    if not run.trains_network:
        raise SettingsError("in stages, the server trains a network of the run's: train must name a protocol or be one")
    server = _Server(grid, STRATEGIES.build(strategy), data, stages, run, on_stage, checkpoint)
    server.go_on()
    server.learn()
    if checkpoint is not None:
        remove(checkpoint)
    return server.result()


class _Server:
    """A run under way: what it is made of, what was measured, and all that it takes to go on later."""

    def __init__(
        self,
        grid: Grid,
        strategy: FederatedStrategy,
        tests: Sequence[LabelledData],
        stages: int,
        run: RunOptions,
        on_stage: OnStage | None,
        checkpoint: str | os.PathLike[str] | None,
    ) -> None:
        self._run, self._on_stage, self._checkpoint = run, on_stage, checkpoint
        self._tests, self._all_stages = tests, stages
        self._grid = MeteredGrid(grid, spec=tests[0].spec)
        context = run.context(run.collector(grid), tests[0])
        self._collector, self._learner = context.collector, context.learner
        self._name = "" if checkpoint is None else self._fingerprint(strategy)
        server = strategy.server(context)
        self._keeper: ServerMemory = getattr(server, "keeper", NoMemory())
        self._client_bytes: dict[int, int] = getattr(server, "client_bytes", {})
        availability = AvailabilityPoll(self._collector, len(tests), run.reply_seconds)
        self._strategy = StagedStrategy(server, run.rounds, self._collector, availability)
        self._weights = weights_of(self._learner.fresh())
        self._untrained = self._accuracies(self._weights)
        self._stages: list[StageResult] = []
        self._server_seconds = 0.0

    def _fingerprint(self, strategy: FederatedStrategy) -> str:
        """Names data and settings of the run."""
        rest = [fingerprint(test, "test") for test in self._tests[1:]]
        settings = {"strategy": describe(strategy), "stages": self._all_stages, **self._run.as_record()}
        return fingerprint(self._tests[0], {**settings, "clients": self._collector.nodes, "tests": rest})

    def learn(self) -> None:
        """Go through the stages that are left."""
        left = self._all_stages - len(self._stages)
        if left:
            self._strategy.stages_done = len(self._stages)
            rounds, timeout = left * self._run.rounds, self._run.reply_seconds
            self._strategy.start(self._grid, self._weights, rounds, timeout=timeout, evaluate_fn=self._after_round)

    def go_on(self) -> None:
        """Take up what the checkpoint holds, if there is one."""
        saved = None if self._checkpoint is None else load_checkpoint(self._checkpoint, self._name)
        if self._checkpoint is not None and saved is not None:
            with restoring(self._checkpoint):
                self._restore(saved)

    def _restore(self, saved: dict[str, Any]) -> None:
        network = self._learner.fresh()
        network.load_state_dict(saved["weights"])
        self._weights = weights_of(network)
        self._keeper.restore(saved["keeper"])
        self._client_bytes.update(saved["client_bytes"])
        self._strategy.learned_at.update(saved["learned_at"])
        self._stages = [StageResult(**{**one, "accuracies": tuple(one["accuracies"])}) for one in saved["stages"]]
        self._grid.ledger.entries.extend(Entry(*one) for one in saved["entries"])
        self._collector.partitions.update(saved["partitions"])
        self._collector.rejections.extend(Rejection(**one) for one in saved["rejections"])

    def result(self) -> FederatedContinualResult:
        """What the run reached."""
        self._grid.ledger.partitions.update(self._collector.partitions)
        recall = getattr(self._keeper, "recall", lambda: None)
        held, learned_at = recall(), self._strategy.learned_at
        return FederatedContinualResult(
            stages=tuple(self._stages),
            learned_at=tuple(learned_at.get(one, len(self._stages)) for one in range(len(self._tests))),
            untrained=self._untrained,
            classes=tuple(classes_of(test) for test in self._tests),
            rejections=tuple(sorted(self._collector.rejections, key=lambda one: one.order)),
            ledger=self._grid.ledger,
            weights=self._weights,
            memory_counts=() if held is None else tuple(held.class_counts.tolist()),
        )

    def _after_round(self, server_round: int, weights: ArrayRecord) -> MetricRecord | None:
        """Flower's ``evaluate_fn``; round 0 is before the first one."""
        if server_round == 0:
            return None
        now, number = time.monotonic(), self._strategy.number(server_round)
        self._server_seconds += now - self._grid.returned_at.get(number, now) + self._grid.held.get(number, 0.0)
        if number % self._run.rounds:
            return None
        self._weights = weights
        self._stages.append(self._stage_result(number))
        self._server_seconds = 0.0
        if self._checkpoint is not None:
            save_checkpoint(self._checkpoint, self._name, self._state())
        if self._on_stage is not None:
            self._on_stage(self._stages[-1])
        return MetricRecord({"accuracies": list(self._stages[-1].accuracies)})

    def _stage_result(self, number: int) -> StageResult:
        rounds = range(number - self._run.rounds + 1, number + 1)
        seconds = [[facts.seconds for facts in self._collector.facts.get(one, [])] for one in rounds]
        return StageResult(
            stage=len(self._stages),
            accuracies=self._accuracies(self._weights),
            asked=len(self._strategy.asked),
            bytes_up=self._grid.ledger.total("up"),
            bytes_down=self._grid.ledger.total("down"),
            server_bytes=self._keeper.bytes_kept,
            client_bytes=sum(self._client_bytes.values()),
            client_seconds=sum(map(sum, seconds)),
            slowest_client_seconds=sum(max(one, default=0.0) for one in seconds),
            server_seconds=self._server_seconds,
        )

    def _state(self) -> dict[str, Any]:
        network: Network = self._learner.with_weights(self._weights)
        return {
            "weights": network.state_dict(),
            "keeper": self._keeper.state(),
            "client_bytes": self._client_bytes,
            "learned_at": self._strategy.learned_at,
            "stages": [{**vars(one), "accuracies": list(one.accuracies)} for one in self._stages],
            "entries": [tuple(one) for one in self._grid.ledger.entries],
            "partitions": self._collector.partitions,
            "rejections": [one.as_record() for one in self._collector.rejections],
        }

    def _accuracies(self, weights: ArrayRecord) -> tuple[float, ...]:
        network = self._learner.with_weights(weights)
        return tuple(accuracy(network, test) for test in self._tests)


def classes_of(data: LabelledData) -> tuple[str, ...]:
    """Names of the classes that ``data`` hold."""
    return tuple(name for name, count in zip(data.class_names, data.class_counts.tolist(), strict=True) if count)
