"""The server's side of a run, the same on every grid: in process, under Ray, or deployed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor, nn

from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.data import DataSpec, LabelledData, as_labelled, conform
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import FAST, Protocol, find_protocol
from fedcl_distill.networks import Architecture, as_architecture
from fedcl_distill.registry import build_with, describe
from fedcl_distill.settings import Count, Fraction, Natural, NonNegative, Positive, settings
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig, class_accuracies, predict
from strategies.federated.aggregation import Rejection, ReplyCollector
from strategies.federated.agreement import agree
from strategies.federated.answers import arrays_of, weights_of
from strategies.federated.grid import ByteLedger, MeteredGrid
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.result import FederatedResult, KeepsNodes, Progress, RoundOffset, RoundResult
from strategies.federated.strategy import STRATEGIES, FederatedStrategy, LearnsFromSets, ServerContext

OnRound = Callable[[RoundResult], None]
Strategy = FederatedStrategy | str | Mapping[str, Any]
"""A strategy, or its plain form: a name, ``"fedprox:mu=0.1"``, ``{"name": "fedprox", "mu": 0.1}``."""
Training = str | Protocol | TrainConfig | Callable[..., Any] | None
Weights = ArrayRecord | Mapping[str, Tensor] | nn.Module

_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.5


@settings
class RunOptions:
    """What a run needs beside its strategy and data; :func:`run_server` takes each of these as a keyword.

    Attributes:
        rounds: of questions and answers.
        seed: fixes the result (same machine and thread count, distillation budgets in steps).
        clients: nodes that take part. None takes those that have registered once no more came for five seconds; say
            how many there are where some may come late.
        network: of the global model: "convnet:width=64", an architecture, or whatever else names one. Clients that
            train it build it by its registered name. None takes the evaluation protocol's for such data.
        train: how the server trains on synthetic sets: an evaluation protocol or its name, a ``TrainConfig``; a
            function of yours; or None to train nothing. The function gets the union, a
            :class:`~fedcl_distill.SyntheticSet`, and, where its samples do not count alike (merged or weighted sets),
            their weights, float64 (n,), after it. It returns a module, which is tested on ``test``; an accuracy in
            [0, 1]; or anything else, which is kept as ``model`` of the result.
        device: where the server computes.
        quorum: fraction of the clients, in [0, 1], whose answers are needed each round; one always is. 1 ends the run
            with a :class:`QuorumError` that names reasons when a single one is missing.
        slack: how far synthetic values may leave the data's range, as a multiple of its width. Unclamped methods do
            leave it: for pixels in [0, 1], DM at one image per class reached 3.7 after 4,000 steps.
        spec: what data look like in this run; nodes put theirs into these terms, or refuse with a reason. None takes
            that of the server's data. ``"agree"`` asks the nodes first (:mod:`strategies.federated.agreement`): for
            sites that read their own files, none of which knows all classes, or how far the values of all reach.
        wait_seconds: for all clients to register; then the run goes on with those that did, if they are a quorum.
        reply_seconds: for the replies of a round.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    rounds: Count = 1
    seed: Natural = 0
    clients: Count | None = None
    network: Any = None
    train: Training = "fast"
    device: str = "cpu"
    quorum: Fraction = 1.0
    slack: NonNegative = 10.0
    spec: DataSpec | Literal["agree"] | None = None
    wait_seconds: NonNegative = 60.0
    reply_seconds: Positive = 3600.0

    def __post_init__(self) -> None:
        _ = self.protocol, self.architecture

    @property
    def protocol(self) -> Protocol:
        """By which the server trains, or, where it does so in another way, whose network is the default."""
        if isinstance(self.train, str):
            return find_protocol(self.train)
        return self.train if isinstance(self.train, Protocol) else FAST

    @property
    def architecture(self) -> Architecture | None:
        """That ``network`` names; None where it names none."""
        return as_architecture(self.network)

    @property
    def trains_network(self) -> bool:
        """Whether the server trains a network as it does for all strategies."""
        return isinstance(self.train, str | Protocol | TrainConfig)

    def learner(self, test: LabelledData, network: str = "") -> Learner:
        """The server's network, ``network`` where the run names none, and how it is trained on data like ``test``."""
        config, default = self.train, Architecture.parse(network) if network else None
        return Learner(
            architecture=self.architecture or default or self.protocol.architecture_for(test),
            training=(lambda samples: config)
            if isinstance(config, TrainConfig)
            else partial(self.protocol.train_config_for, test),
            sample_shape=test.sample_shape,
            num_classes=test.num_classes,
            seed=self.seed,
            device=self.device,
        )

    def collector(self, grid: Grid) -> ReplyCollector:
        """Of the nodes of this run."""
        return ReplyCollector(self.clients or _count_nodes(grid, self.wait_seconds), self.quorum, self.wait_seconds)

    def specified(self, grid: Grid, collector: ReplyCollector, test: LabelledData) -> LabelledData:
        """The server's data in the terms of the run; nodes are asked first, where they are to agree.

        Raises:
            DataError: the data do not fit ``spec``.
            QuorumError, SettingsError: nodes could not agree.
        """
        if self.spec is None:
            return test
        if isinstance(self.spec, DataSpec):
            return conform(test, self.spec)
        return conform(test, agree(grid, collector, test, seconds=self.reply_seconds))

    def context(self, collector: ReplyCollector, test: LabelledData, network: str = "") -> ServerContext:
        """What the strategy's server works with; ``network`` is trained where the run names none."""
        return ServerContext(test, self.learner(test, network), collector, self.rounds, self.slack, self.reply_seconds)

    def as_record(self) -> dict[str, Any]:
        """What a checkpoint must have been written with."""
        record = {name: describe(getattr(self, name)) for name in ("rounds", "seed", "train", "slack")}
        return {**record, "network": describe(self.architecture)}


def run_server(
    grid: Grid,
    strategy: Strategy,
    *,
    test: Any,
    initial: Weights | None = None,
    on_round: OnRound | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **options: Any,
) -> FederatedResult:
    """Run ``strategy`` on ``grid`` and evaluate the global model after every round.

    Args:
        grid: how nodes are reached.
        strategy: what is asked and what is made of the answers: an object, or its plain form.
        test: the server's own data for evaluation, ``LabelledData`` or any map-style data set; their classes, shape,
            range and normalisation are the run's, unless ``spec`` says more.
        initial: the global model to begin with, for strategies that send one: weights of the run's network, such as
            ``weights`` of an earlier result. None begins with fresh ones.
        on_round: called after each round, and once before the first; where a run goes on, that is with the last round
            that was finished.
        checkpoint: file where the server writes how it stands after each round, and from which it goes on; in the same
            run of Flower, and in process in any, to the same bits, else without what nodes kept (see ``result.py``).
        options: fields of :class:`RunOptions`: ``rounds``, ``seed``, ``clients``, ``network``, ``train``, ``device``,
            ``quorum``, ``slack``, ``spec``, ``wait_seconds``, ``reply_seconds``.

    Raises:
        SettingsError: a value is unknown or out of range, or settings do not fit each other or the data.
        QuorumError: too few nodes, or too few valid answers in some round.
        DivergenceError: training on synthetic sets diverged.
        CheckpointError: ``checkpoint`` is damaged or belongs to a run with other settings or data.
        StorageError: ``checkpoint`` cannot be written.

    Example:
        >>> union = run_server(grid, OneShot("dm", images_per_class=10), test=test, network="convnet:width=16")
        >>> tuned = run_server(grid, FedAvg(), test=test, network="convnet:width=16", rounds=3, initial=union.weights)
    """
    chosen = STRATEGIES.build(strategy)
    run = make_options(options)
    if not run.trains_network:
        if initial is not None or checkpoint is not None:
            raise SettingsError("a run whose server trains no network of ours takes no initial model and no checkpoint")
        return _train_elsewhere(grid, chosen, as_labelled(test), run, on_round)
    context, metered = _prepared(grid, chosen, as_labelled(test), run)
    test, collector, learner = context.test, context.collector, context.learner
    server = chosen.server(context)
    progress = None
    if checkpoint is not None:
        name = fingerprint(test, {"strategy": describe(chosen), "clients": collector.nodes, **run.as_record()})
        progress = Progress(checkpoint, name, grid, server, collector, metered.ledger)
    judge = _Judge(learner, test, metered, collector, on_round, progress)
    start = weights_of(learner.fresh()) if initial is None else _initial(initial, chosen, learner)
    start, done = judge.resume() or (start, 0)
    result = (RoundOffset(server, done) if done else server).start(
        metered, start, run.rounds - done, timeout=run.reply_seconds, evaluate_fn=judge
    )
    metered.ledger.partitions.update(collector.partitions)
    gathered = getattr(server, "gathered", None)
    return FederatedResult(
        rounds=tuple(judge.rounds),
        rejections=_in_order(collector),
        ledger=metered.ledger,
        weights=result.arrays or start,
        synthetic=getattr(server, "synthetic", None),
        clients_per_class=getattr(gathered, "clients_per_class", None) or None,
    )


@dataclass(frozen=True)
class CollectedSets:
    """What nodes sent, as one set.

    Attributes:
        synthetic: the set, checked, and merged where that was asked for.
        weights: float64 (n,): how much each of its samples counts; None for all alike.
        partitions: whose data it stands for, in order.
        clients_per_class: how many of them sent a sample of each class; empty where sums were sent.
        rejections: answers that were not used.
        round: what it took; its accuracy is NaN.
        ledger: every message's bytes.
    """

    synthetic: SyntheticSet
    weights: Tensor | None
    partitions: tuple[int, ...]
    clients_per_class: tuple[int, ...]
    rejections: tuple[Rejection, ...]
    round: RoundResult
    ledger: ByteLedger = field(repr=False)


def collect_sets(grid: Grid, strategy: Strategy, *, like: Any, **options: Any) -> CollectedSets:
    """Ask every node once, and put together what they send; no network is trained.

    Args:
        grid: how nodes are reached.
        strategy: one whose answers become a synthetic set, such as ``OneShot("dm", images_per_class=10)``.
        like: data of the kind that nodes hold (their classes, shape, normalisation and range are the run's);
            ``LabelledData`` or any map-style data set.
        options: as for :func:`run_server`.

    Raises:
        SettingsError, QuorumError, DivergenceError: as there; also where the strategy sends a model first.

    Example:
        >>> union = collect_sets(grid, OneShot("herding", images_per_class=5), like=test).synthetic
    """
    chosen = STRATEGIES.build(strategy)
    run = make_options(options)
    return _collect(*_prepared(grid, chosen, as_labelled(like), run), chosen, run)


def make_options(given: Mapping[str, Any]) -> RunOptions:
    """The options of a run; SettingsError, which names the nearest option, where one is unknown."""
    return build_with("run_server", RunOptions, given)


def _prepared(
    grid: Grid, strategy: FederatedStrategy, test: LabelledData, run: RunOptions
) -> tuple[ServerContext, MeteredGrid]:
    """What the server works with, and the grid on which every message says what data look like."""
    collector, ledger = run.collector(grid), ByteLedger()
    test = strategy.scaled(run.specified(MeteredGrid(grid, ledger), collector, test))
    return run.context(collector, test, strategy.network), MeteredGrid(grid, ledger, test.spec)


def _collect(
    context: ServerContext, metered: MeteredGrid, strategy: FederatedStrategy, run: RunOptions
) -> CollectedSets:
    server, collector = strategy.server(context), context.collector
    if not isinstance(server, LearnsFromSets) or strategy.needs_model:
        raise SettingsError(f"nodes of {type(strategy).__name__} do not answer with sets that stand for themselves")
    messages = server.configure_train(1, ArrayRecord(), ConfigRecord({"server-round": 1}), metered)
    replies = metered.send_and_receive(messages, timeout=run.reply_seconds)
    gathered, now = server.collect(1, replies), time.monotonic()
    metered.ledger.partitions.update(collector.partitions)
    return CollectedSets(
        gathered.synthetic,
        gathered.weights,
        gathered.partitions,
        gathered.clients_per_class,
        _in_order(collector),
        _round_result(1, math.nan, (), metered, collector, now),
        metered.ledger,
    )


def _train_elsewhere(
    grid: Grid, strategy: FederatedStrategy, test: LabelledData, run: RunOptions, on_round: OnRound | None
) -> FederatedResult:
    """A run that ends with the union, or with what a function of the user's makes of it."""
    context, metered = _prepared(grid, strategy, test, run)
    union, test = _collect(context, metered, strategy, run), context.test
    model, started = None, time.monotonic()
    if callable(run.train):
        model = run.train(union.synthetic) if union.weights is None else run.train(union.synthetic, union.weights)
    seconds = union.round.server_seconds + time.monotonic() - started
    accuracy, by_class = _judged(model, test)
    done = replace(union.round, accuracy=accuracy, class_accuracies=by_class, server_seconds=seconds)
    if on_round is not None:
        on_round(done)
    return FederatedResult(
        rounds=(done,),
        rejections=union.rejections,
        ledger=union.ledger,
        weights=weights_of(model) if isinstance(model, nn.Module) else ArrayRecord(),
        synthetic=union.synthetic,
        clients_per_class=union.clients_per_class or None,
        model=model,
    )


def _judged(model: Any, test: LabelledData) -> tuple[float, tuple[float, ...]]:
    """Accuracy of a module; or what a user's function says of it."""
    if isinstance(model, nn.Module):
        predicted = predict(model, test)
        return float((predicted == test.labels).double().mean()), tuple(class_accuracies(predicted, test).tolist())
    if isinstance(model, float) and 0 <= model <= 1:
        return model, ()
    return math.nan, ()


def _initial(initial: Weights, strategy: FederatedStrategy, learner: Learner) -> ArrayRecord:
    """Weights to begin with, once they are known to be those of the run's network."""
    if not strategy.needs_model:
        raise SettingsError(f"{type(strategy).__name__} trains a fresh model: it takes no initial one")
    if isinstance(initial, nn.Module):
        record = weights_of(initial)
    else:
        record = initial if isinstance(initial, ArrayRecord) else arrays_of(initial)
    return weights_of(learner.with_weights(record))


def _count_nodes(grid: Grid, wait_seconds: float) -> int:
    """How many nodes there are, once none has come for a while."""
    found, since, deadline = len(list(grid.get_node_ids())), time.monotonic(), time.monotonic() + wait_seconds
    while not isinstance(grid, KeepsNodes) and time.monotonic() < min(deadline, since + _SETTLE_SECONDS):
        time.sleep(_POLL_SECONDS)
        now = len(list(grid.get_node_ids()))
        if now != found or not found:
            found, since = now, time.monotonic()
    log.info("%d nodes have registered: these take part (clients=… says how many to wait for)", found)
    return max(found, 1)


def _in_order(collector: ReplyCollector) -> tuple[Rejection, ...]:
    return tuple(sorted(collector.rejections, key=lambda one: one.order))


def _round_result(
    server_round: int,
    accuracy: float,
    by_class: tuple[float, ...],
    grid: MeteredGrid,
    collector: ReplyCollector,
    now: float,
) -> RoundResult:
    seconds = [facts.seconds for facts in collector.facts.get(server_round, [])]
    return RoundResult(
        server_round=server_round,
        accuracy=accuracy,
        class_accuracies=by_class,
        bytes_up=grid.ledger.total("up", up_to_round=server_round),
        bytes_down=grid.ledger.total("down", up_to_round=server_round),
        answers=len(seconds),
        client_seconds=sum(seconds),
        slowest_client_seconds=max(seconds, default=0.0),
        server_seconds=now - grid.returned_at.get(server_round, now) + grid.held.get(server_round, 0.0),
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
        accuracy, by_class = self._learner.class_accuracies(weights, self._test)
        result = _round_result(server_round, accuracy, by_class, self._grid, self._collector, now)
        self.rounds.append(result)
        if self._progress is not None:
            self._progress.save(weights)
        if self._on_round is not None:
            self._on_round(result)
        return MetricRecord({"accuracy": accuracy, "class-accuracies": list(by_class)})
