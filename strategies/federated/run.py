"""The server's side of a run, the same on every grid: in process, under Ray, or deployed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Architecture
from strategies.federated.collector import ReplyCollector
from strategies.federated.grid import MeteredGrid
from strategies.federated.learner import Learner
from strategies.federated.private_statistics import scaled_for
from strategies.federated.registry import build_strategy
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.resume import Progress, RoundOffset
from strategies.federated.settings import FederatedSettings
from strategies.federated.weights import weights_of

OnRound = Callable[[RoundResult], None]


def run_server(
    grid: Grid,
    settings: FederatedSettings,
    test: LabelledData,
    on_round: OnRound | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FederatedResult:
    """Run the strategy of ``settings`` on ``grid`` and evaluate the global model after every round.

    Args:
        grid: how nodes are reached.
        settings: of the run.
        test: the server's own data for evaluation; their classes, shape and normalisation are the run's.
        on_round: called after each round, and once before the first; where a run goes on, that is with the last round
            that was finished.
        checkpoint: file where the server writes how it stands after each round, and from which it goes on; in the same
            run of Flower, and in process in any, to the same bits, else without what nodes kept (see :mod:`resume`).

    Raises:
        SettingsError: the settings do not fit each other or the data.
        QuorumError: too few nodes, or too few valid answers in some round.
        DivergenceError: training on synthetic sets diverged.
        CheckpointError: ``checkpoint`` is damaged or belongs to a run with other settings or data.
        StorageError: ``checkpoint`` cannot be written.
    """
    metered, test = MeteredGrid(grid), scaled_for(settings, test)
    collector = ReplyCollector(settings.clients, settings.quorum, settings.wait_seconds)
    learner = learner_for(settings, test)
    strategy = build_strategy(settings, test, learner, collector)
    progress = None
    if checkpoint is not None:
        name = fingerprint(test, settings.as_record())
        progress = Progress(checkpoint, name, grid, strategy, collector, metered.ledger)
    judge = _Judge(learner, test, metered, collector, on_round, progress)
    initial, done = judge.resume() or (weights_of(learner.fresh()), 0)
    result = (RoundOffset(strategy, done) if done else strategy).start(
        metered, initial, settings.rounds - done, timeout=settings.reply_seconds, evaluate_fn=judge
    )
    metered.ledger.partitions.update(collector.partitions)
    return FederatedResult(
        rounds=tuple(judge.rounds),
        rejections=tuple(sorted(collector.rejections, key=lambda one: one.order)),
        ledger=metered.ledger,
        weights=result.arrays or initial,
        synthetic=getattr(strategy, "synthetic", None),
        clients_per_class=getattr(getattr(strategy, "gathered", None), "clients_per_class", None),
    )


def learner_for(settings: FederatedSettings, test: LabelledData) -> Learner:
    """The server's network and how it is trained; ``test`` gives shape and classes."""
    return Learner(
        architecture=Architecture.parse(settings.architecture_for(test)),
        train_config=settings.server_protocol.train_config_for(test),
        sample_shape=test.sample_shape,
        num_classes=test.num_classes,
        seed=settings.seed,
        device=settings.device,
    )


class _Judge:
    """Flower's ``evaluate_fn``: called before the first round and after each, with the global model's weights."""

    def __init__(
        self,
        learner: Learner,
        test: LabelledData,
        grid: MeteredGrid,
        collector: ReplyCollector,
        on_round: OnRound | None,
        progress: Progress | None,
    ) -> None:
        self._learner, self._test, self._grid, self._collector = learner, test, grid, collector
        self._on_round, self._progress = on_round, progress
        self._done = 0
        self.rounds: list[RoundResult] = [] if progress is None else progress.rounds

    def resume(self) -> tuple[ArrayRecord, int] | None:
        """The model after the last round that an earlier server finished, and which one; None where there is none."""
        weights = None if self._progress is None else self._progress.load()
        if weights is None:
            return None
        self._done = self.rounds[-1].server_round
        if self._on_round is not None:
            self._on_round(self.rounds[-1])
        return weights, self._done

    def __call__(self, server_round: int, weights: ArrayRecord) -> MetricRecord | None:
        if server_round == 0 and self.rounds:  # judged before the server stopped
            return None
        server_round += self._done
        now = time.monotonic()
        accuracy, class_accuracies = self._learner.class_accuracies(weights, self._test)
        seconds = [facts.seconds for facts in self._collector.facts.get(server_round, [])]
        ledger = self._grid.ledger
        result = RoundResult(
            server_round=server_round,
            accuracy=accuracy,
            class_accuracies=class_accuracies,
            bytes_up=ledger.total("up", up_to_round=server_round),
            bytes_down=ledger.total("down", up_to_round=server_round),
            answers=len(seconds),
            client_seconds=sum(seconds),
            slowest_client_seconds=max(seconds, default=0.0),
            server_seconds=now - self._grid.returned_at.get(server_round, now) + self._grid.held.get(server_round, 0.0),
        )
        self.rounds.append(result)
        if self._progress is not None:
            self._progress.save(weights)
        if self._on_round is not None:
            self._on_round(result)
        return MetricRecord({"accuracy": accuracy, "class-accuracies": list(class_accuracies)})
