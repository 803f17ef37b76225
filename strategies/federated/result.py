"""What a federated run reached and what it cost, and the checkpoint it goes on from.

What nodes keep is not the server's to save. It lives as long as Flower's run: a server that goes on within that run
reaches the same bits as one that never stopped. In another run, nodes have forgotten all, and the strategy is told so.
A grid whose nodes end with the server keeps their state in the server's checkpoint: then nothing is forgotten.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcl_distill.checkpoint import load_checkpoint, save_checkpoint
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import Rejection, ReplyCollector
from strategies.federated.answers import ClientReport, State, arrays_of, tensors_of
from strategies.federated.grid import ByteLedger, Entry
from strategies.federated.internals import log

_MOST_REASONS = 5


@dataclass(frozen=True)
class RoundResult:
    """The state after a round; round 0 is the fresh model.

    Attributes:
        server_round: from 0.
        accuracy: of the global model on the central test data, in [0, 1]; NaN where nothing was tested.
        class_accuracies: on each class; NaN for a class without test samples.
        bytes_up, bytes_down: sent by all nodes, and to all nodes, in all rounds so far.
        answers: that were used in this round.
        client_seconds: which the nodes behind those answers say they worked in this round, together.
        slowest_client_seconds: the longest of them: what a round would take where all nodes work at once.
        server_seconds: of the server's own work in this round, evaluation not included.
    """

    server_round: int
    accuracy: float
    class_accuracies: tuple[float, ...]
    bytes_up: int = 0
    bytes_down: int = 0
    answers: int = 0
    client_seconds: float = 0.0
    slowest_client_seconds: float = 0.0
    server_seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """JSON values; None for NaN."""
        return {
            "round": self.server_round,
            "accuracy": None if math.isnan(self.accuracy) else self.accuracy,
            "class_accuracies": [None if math.isnan(one) else one for one in self.class_accuracies],
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "answers": self.answers,
            "client_seconds": round(self.client_seconds, 3),
            "slowest_client_seconds": round(self.slowest_client_seconds, 3),
            "server_seconds": round(self.server_seconds, 3),
        }


@dataclass(frozen=True)
class FederatedResult:
    """A run.

    Attributes:
        rounds: round 0 first.
        rejections: answers that were not used.
        ledger: every message's bytes.
        weights: of the final global model.
        synthetic: the union of synthetic sets it was trained on, for strategies that have one.
        clients_per_class: how many clients' sets in the last round held each class, for those strategies; a class with
            0 was covered by nobody.
        model: what the user's own training returned, where there was one.
    """

    rounds: tuple[RoundResult, ...]
    rejections: tuple[Rejection, ...]
    ledger: ByteLedger = field(repr=False)
    weights: ArrayRecord = field(repr=False)
    synthetic: SyntheticSet | None = field(default=None, repr=False)
    clients_per_class: tuple[int, ...] | None = None
    model: Any = field(default=None, repr=False)

    @property
    def accuracy(self) -> float:
        """Of the final global model on the central test data, in [0, 1]."""
        return self.rounds[-1].accuracy

    def __str__(self) -> str:
        """Who was rejected comes first, one line a reason; then what was reached, and for how many bytes."""
        last = self.rounds[-1]
        reached = f"accuracy {100 * last.accuracy:.1f} %" if not math.isnan(last.accuracy) else "nothing was tested"
        lines = [f"{reached} after {last.server_round} rounds, {last.bytes_up:,} bytes up, {last.bytes_down:,} down"]
        if not self.rejections:
            return lines[0]
        reasons = Counter(one.reason for one in self.rejections)
        nodes = {one.node for one in self.rejections}
        head = f"REJECTED: {len(self.rejections)} answers of {len(nodes)} nodes were not used"
        named = [f"  {count} × {reason}" for reason, count in reasons.most_common(_MOST_REASONS)]
        return "\n".join([head, *named, *lines])

    def as_record(self) -> dict[str, Any]:
        """JSON values: the final round's accuracy and bytes on top, seconds summed over all rounds."""
        last = self.rounds[-1].as_record()
        return {
            "accuracy": last["accuracy"],
            "class_accuracies": last["class_accuracies"],
            "bytes_up": last["bytes_up"],
            "bytes_down": last["bytes_down"],
            "client_seconds": round(sum(one.client_seconds for one in self.rounds), 3),
            "slowest_client_seconds": round(sum(one.slowest_client_seconds for one in self.rounds), 3),
            "server_seconds": round(sum(one.server_seconds for one in self.rounds), 3),
            "synthetic_samples": None if self.synthetic is None else len(self.synthetic),
            "privacy": None if self.synthetic is None else self.synthetic.provenance.get("privacy"),
            "clients_per_class": None if self.clients_per_class is None else list(self.clients_per_class),
            "rounds": [one.as_record() for one in self.rounds],
            "bytes_by_client": self.ledger.as_record(),
            "rejections": [one.as_record() for one in self.rejections],
        }


@runtime_checkable
class Resumable(Protocol):
    """A strategy that can go on in another process."""

    def state(self) -> State:
        """What it carries from one round to the next, beside the global model."""

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""

    def forget_nodes(self) -> None:
        """Nodes have lost what they kept; drop what mirrors it."""


@runtime_checkable
class KeepsNodes(Protocol):
    """A grid whose nodes live in the server's process, so that what they keep has to outlive it with the server's."""

    def node_state(self) -> State:
        """What all nodes keep."""

    def restore_nodes(self, state: State) -> None:
        """Let nodes go on from what :meth:`node_state` gave."""


class RoundOffset(Strategy):
    """``strategy`` from the round after ``done`` on: Flower counts rounds from 1 in any case."""

    def __init__(self, strategy: Strategy, done: int) -> None:
        self._strategy, self._done = strategy, done

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does in its own count."""
        return self._strategy.configure_train(self._done + server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the strategy does in its own count."""
        return self._strategy.aggregate_train(self._done + server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the strategy does in its own count."""
        return self._strategy.configure_evaluate(self._done + server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As the strategy does in its own count."""
        return self._strategy.aggregate_evaluate(self._done + server_round, replies)

    def summary(self) -> None:
        """Log after which round this goes on."""
        log.info("going on after round %d", self._done)
        self._strategy.summary()


@dataclass
class Progress:
    """Everything of a run that outlives its server.

    Attributes:
        path: of the checkpoint.
        fingerprint: names data and settings.
        grid: how nodes are reached; it knows Flower's run.
        strategy, collector, ledger: as the run fills them.
        rounds: so far, round 0 first.

    Raises:
        SettingsError: on construction, if the strategy cannot go on in another process.
    """

    path: str | os.PathLike[str]
    fingerprint: str
    grid: Grid
    strategy: Strategy
    collector: ReplyCollector
    ledger: ByteLedger
    rounds: list[RoundResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, Resumable):
            raise SettingsError(f"strategy {type(self.strategy).__name__} keeps no checkpoints")

    def save(self, weights: ArrayRecord) -> None:
        """Write where the run stands after a round, with the global model; atomically.

        Raises:
            StorageError: the file could not be written; an older one is untouched.
        """
        assert isinstance(self.strategy, Resumable)
        collector = self.collector
        state = {
            "run": self.grid.run.run_id,
            "nodes": self.grid.node_state() if isinstance(self.grid, KeepsNodes) else None,
            "weights": tensors_of(weights),
            "strategy": self.strategy.state(),
            "rounds": [asdict(one) for one in self.rounds],
            "rejections": [asdict(one) for one in collector.rejections],
            "facts": {number: [asdict(one) for one in facts] for number, facts in collector.facts.items()},
            "partitions": dict(collector.partitions),
            "used": dict(collector.used),
            "ledger": [tuple(entry) for entry in self.ledger.entries],
        }
        save_checkpoint(self.path, self.fingerprint, state)

    def load(self) -> ArrayRecord | None:
        """The global model after the last round that was finished, and all else put back; None without a checkpoint.

        Raises:
            CheckpointError: the file is damaged, or belongs to a run with other settings or data.
        """
        state = load_checkpoint(self.path, self.fingerprint)
        if state is None:
            return None
        try:
            return self._put_back(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"checkpoint {self.path} does not fit this version: {error}") from error

    def _put_back(self, state: State) -> ArrayRecord:
        assert isinstance(self.strategy, Resumable)
        collector = self.collector
        self.strategy.restore(state["strategy"])
        self.rounds[:] = [RoundResult(**one) for one in state["rounds"]]
        self.ledger.entries[:] = [Entry(*one) for one in state["ledger"]]
        collector.rejections[:] = [Rejection(**one) for one in state["rejections"]]
        collector.facts.update(
            {number: [ClientReport(**one) for one in facts] for number, facts in state["facts"].items()}
        )
        collector.partitions.update(state["partitions"])
        collector.used.update(state["used"])
        if state["run"] != self.grid.run.run_id:
            self._meet_other_nodes(state["nodes"])
        return arrays_of(state["weights"])

    def _meet_other_nodes(self, kept: State | None) -> None:
        """The nodes of another run of Flower get back what those of the earlier one kept, or else it is forgotten."""
        assert isinstance(self.strategy, Resumable)
        if kept is not None and isinstance(self.grid, KeepsNodes):
            self.grid.restore_nodes(kept)
            return
        log.warning("another run of Flower: nodes start without what they kept")
        self.collector.used.clear()
        self.strategy.forget_nodes()
