"""Statistics first: every node sends sums, the server adds them up and distils once; plain, or with noise.

The server asks every node for class-wise sums of features under random networks that all draw from one seed. The
server checks the sums, adds them, distils samples with the same class means (distribution matching, Zhao and Bilen
2023, with its real side summed beforehand), and trains the global model on these. No node optimises anything, and the
result is that of the pooled data, however these are divided.

Under differential privacy, noise is added at every node, or once at a server that all trust; shares of noise at every
node, for a server that sees the total alone, are in :mod:`strategies.federated.secure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import ClassVar, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.engine import finished
from fedcl_distill.errors import PayloadError
from fedcl_distill.privacy import NoiseSource, PrivacyTarget, for_group
from fedcl_distill.privacy.accounting import DELTA, KEY, Delta, Guarantee
from fedcl_distill.settings import NonNegative, settings
from fedcl_distill.statistics import (
    ClassStatistics,
    NoisyExpectation,
    NoisyStatistics,
    Shares,
    StatisticsExpectation,
    add_up,
    add_up_noisy,
    decode_noisy,
    decode_statistics,
    encode_noisy,
    encode_statistics,
    with_noise,
)
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import AggregatedSets, ReplyCollector
from strategies.federated.answers import SUMS, ClientReport, pack_payload, unpack_payload
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.requests import CONFIG, PrivateStatisticsRequest, StatisticsRequest, Task
from strategies.federated.strategy import ClientStep, LearnsFromSets

Distil = Callable[[ClassStatistics], SyntheticSet]
Total = Callable[[Sequence[ClassStatistics]], ClassStatistics]


def sum_features(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data."""
    request = task.read(StatisticsRequest)
    task.admit_sums(request)
    sums = request.measure(task.data, task.device)
    agreed = replace(sums, domain=replace(sums.domain, value_range=task.value_range))
    return pack_payload(SUMS, encode_statistics(agreed, request.bits))


SUMMED = ClientStep("statistics", sum_features)


class StatisticsServer(LearnsFromSets):
    """Adds up the nodes' statistics, distils them, and trains the global model on the result.

    Args:
        request: what every node is asked.
        expectation: what statistics must be.
        distil: makes the synthetic set from the sum.
        learner: trains the global model.
        collector: waits for nodes and turns bad answers away.
        total: what is distilled, given what the nodes of a round sent: their sum, or that and what came before.

    Attributes:
        statistics: of all nodes that were heard, once the round is over.
        gathered: what was distilled from them.
    """

    kind: ClassVar[str] = SUMMED.kind
    """Message type of its requests."""

    def __init__(
        self,
        request: StatisticsRequest,
        expectation: StatisticsExpectation,
        distil: Distil,
        learner: Learner,
        collector: ReplyCollector,
        total: Total = add_up,
    ) -> None:
        super().__init__(learner, collector)
        self.request = request
        self.expectation = expectation
        self.distil = distil
        self.total = total
        self.statistics: ClassStatistics | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node for its sums; the model stays here."""
        content = RecordDict({CONFIG: self.request.to_record(server_round)})
        return self.collector.ask(grid, content, self.kind)

    def collect(self, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """Check the sums, add them in the order of partitions, and distil.

        Raises:
            QuorumError: too few answers could be used.
            DivergenceError: distillation diverged.
        """
        self.statistics, heard = self._total(server_round, replies)
        self.gathered = AggregatedSets(finished(self._distilled(self.statistics)), None, heard, ())
        return self.gathered

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node sends class-wise sums of features in %d views", self.request.specification.views)

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[ClassStatistics, tuple[int, ...]]:
        """The statistics of all nodes that were heard, and which partitions these hold."""
        answers = self.collector.iter_replies(server_round, replies, self._read)
        return self._added([answer.value for answer in answers]), tuple(answer.facts.partition for answer in answers)

    def _added(self, values: Sequence[ClassStatistics]) -> ClassStatistics:
        return self.total(values)

    def _distilled(self, statistics: ClassStatistics) -> SyntheticSet:
        return self.distil(statistics)

    def _read(self, content: RecordDict) -> ClassStatistics:
        statistics = decode_statistics(unpack_payload(content, SUMS, self.expectation.limits))
        self.expectation.check(statistics)
        counted, said = int(statistics.class_counts.sum()), ClientReport.of(content).examples
        if counted != said:
            raise PayloadError(f"statistics count {counted} samples, the node says it has {said}")
        return statistics


NODE, NODES, SERVER = "node", "nodes", "server"


@settings
class PrivacyOptions:
    """How private statistics are to be.

    Attributes:
        epsilon: of every record; 0 for statistics without noise.
        delta: in (0, 1).
        trust: "node": every node adds noise to its own sums and trusts no one. "server": nodes send exact sums, and
            the server adds noise once to the total; all trust it, and get less noise for the same ε. "nodes": every
            node adds a share of that noise under secure aggregation, and trusts the others to do so, but no server.
        disjoint_clients: whether you state that no record is at two nodes. Otherwise one may be at all of them, and the
            guarantee is what holds then.
    """

    epsilon: NonNegative = 0.0
    delta: Delta = DELTA
    trust: Literal["node", "nodes", "server"] = "node"
    disjoint_clients: bool = False

    @property
    def target(self) -> PrivacyTarget:
        return PrivacyTarget(self.epsilon, self.delta)


def sum_privately(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data, with noise."""
    request = task.read(PrivateStatisticsRequest)
    task.admit_sums(request)
    noisy = request.release(task.data, task.budget, device=task.device)
    return pack_payload(SUMS, encode_noisy(noisy, request.bits))


PRIVATELY_SUMMED = ClientStep("private", sum_privately, protected=True, discreet=True)


class NodeNoiseStatistics(StatisticsServer):
    """Nodes send noisy sums; neither a node's size nor its seconds are told, for both depend on its data."""

    kind = PRIVATELY_SUMMED.kind

    def __init__(
        self,
        request: StatisticsRequest,
        expectation: NoisyExpectation,
        distil: Distil,
        learner: Learner,
        collector: ReplyCollector,
        disjoint: bool = False,
    ) -> None:
        self.disjoint = disjoint
        self.noisy_expectation = expectation
        self.noisy: NoisyStatistics | None = None
        super().__init__(request, expectation.plain, distil, learner, collector)

    def _added(self, values: Sequence[NoisyStatistics]) -> ClassStatistics:  # type: ignore[override]
        self.noisy = add_up_noisy(values, disjoint=self.disjoint)
        return self.noisy.as_statistics()

    def _distilled(self, statistics: ClassStatistics) -> SyntheticSet:
        assert self.noisy is not None
        return guaranteed(self.distil(statistics), self.noisy.guarantee)

    def _read(self, content: RecordDict) -> NoisyStatistics:  # type: ignore[override]
        noisy = decode_noisy(unpack_payload(content, SUMS, self.noisy_expectation.limits))
        self.noisy_expectation.check(noisy)
        return noisy


def private_statistics(plain: StatisticsServer, options: PrivacyOptions) -> StatisticsServer:
    """``plain`` with noise, at every node or at the server.

    Raises:
        SettingsError: the features are not bounded, or the settings do not fit the data.
    """
    spec, domain = plain.expectation.spec, plain.expectation.domain
    expectation = NoisyExpectation(spec, domain, Shares(), options.target)
    if options.trust == NODE:
        noise = {"epsilon": options.epsilon, "delta": options.delta, "shares": asdict(Shares())}
        request = plain.request.extended(PrivateStatisticsRequest, **noise)
        parts = plain.distil, plain.learner, plain.collector
        return NodeNoiseStatistics(request, expectation, *parts, options.disjoint_clients)

    def distil(exact: ClassStatistics) -> SyntheticSet:
        noisy = with_noise(exact, options.target, Shares(), NoiseSource.fresh())
        claim = of_total(noisy.guarantee, 1 if options.disjoint_clients else len(plain.collector.partitions))
        return guaranteed(plain.distil(noisy.as_statistics()), claim)

    return StatisticsServer(plain.request, plain.expectation, distil, plain.learner, plain.collector)


def of_total(guarantee: Guarantee | None, copies: int) -> Guarantee | None:
    """Of one noisy total in which a record may be so many times, once for each node that holds it."""
    return None if guarantee is None else for_group(guarantee, max(copies, 1))


def guaranteed(synthetic: SyntheticSet, guarantee: Guarantee | None) -> SyntheticSet:
    """``synthetic`` with ``guarantee`` in its provenance, if there is one."""
    if guarantee is None:
        return synthetic
    return replace(synthetic, provenance={**synthetic.provenance, KEY: guarantee.as_record()})
