"""Statistics first: every node sends sums, the server adds them up and distils once.

The server asks every node for class-wise sums of features under random networks that all draw from one seed. The
server checks the sums, adds them, distils samples with the same class means (distribution matching, Zhao and Bilen
2023, with its real side summed beforehand), and trains the global model on these. No node optimises anything, and the
result is that of the pooled data, however these are divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.engine import finished
from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsExpectation,
    add_up,
    decode_statistics,
    encode_statistics,
)
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import AggregatedSets
from strategies.federated.answers import SUMS, ClientReport, pack_payload, unpack_payload
from strategies.federated.collector import ReplyCollector
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.node import Task
from strategies.federated.requests import CONFIG, StatisticsRequest
from strategies.federated.strategy import ClientStep, LearnsFromSets

Distil = Callable[[ClassStatistics], SyntheticSet]
Total = Callable[[Sequence[ClassStatistics]], ClassStatistics]


def sum_features(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data."""
    request = task.read(StatisticsRequest)
    task.admit_sums(request)
    return pack_payload(SUMS, encode_statistics(request.measure(task.data, task.device), request.bits))


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
