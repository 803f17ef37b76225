"""A server that is killed goes on after the last round it finished.

What nodes keep is not the server's to save. It lives as long as Flower's run: a server that goes on within that run
reaches the same bits as one that never stopped. In another run, nodes have forgotten all, and the strategy is told so.
A grid whose nodes end with the server keeps their state in the server's checkpoint: then nothing is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcl_distill.checkpoint import load_checkpoint, save_checkpoint
from fedcl_distill.errors import CheckpointError, SettingsError
from strategies.federated.answers import ClientReport
from strategies.federated.collector import Rejection, ReplyCollector
from strategies.federated.grid import ByteLedger, Entry
from strategies.federated.internals import log
from strategies.federated.result import RoundResult
from strategies.federated.state import State, arrays_of, tensors_of


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
