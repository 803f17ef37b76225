"""Statistics first: every node sends sums, the server adds them up and distils once.

The server asks every node for class-wise sums of features under random networks that all draw from one seed. The
server checks the sums, adds them, distils samples with the same class means (distribution matching, Zhao and Bilen
2023, with its real side summed beforehand), and trains the global model on these. No node optimises anything, and the
result is that of the pooled data, however these are divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, finished
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import (
    BITS,
    ClassStatistics,
    StatisticsDistiller,
    StatisticsExpectation,
    StatisticsSpec,
    add_up,
    decode_statistics,
)
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.answers import SUMS, ClientReport, unpack_payload
from strategies.federated.collector import ReplyCollector
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.requests import CONFIG, STATISTICS, StatisticsRequest
from strategies.federated.settings import FederatedSettings
from strategies.federated.state import State, set_as_state, set_from_state
from strategies.federated.train_only import TrainOnly

Distil = Callable[[ClassStatistics], SyntheticSet]
Total = Callable[[Sequence[ClassStatistics]], ClassStatistics]


class FederatedStatistics(TrainOnly):
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
        synthetic: what was distilled from them.
    """

    kind: ClassVar[str] = STATISTICS
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
        self.request = request
        self.expectation = expectation
        self.distil = distil
        self.learner = learner
        self.collector = collector
        self.total = total
        self.statistics: ClassStatistics | None = None
        self.synthetic: SyntheticSet | None = None

    @classmethod
    def of(
        cls,
        settings: FederatedSettings,
        test: LabelledData,
        spec: StatisticsSpec,
        distiller: StatisticsDistiller,
        learner: Learner,
        collector: ReplyCollector,
        total: Total = add_up,
    ) -> FederatedStatistics:
        """The strategy of a run.

        Raises:
            SettingsError: the settings do not fit each other or the data.
        """
        if settings.byte_budget is not None:
            raise SettingsError("statistics take no byte budget; views and dimensions say what they take")
        if settings.bits not in BITS:
            raise SettingsError(f"statistics are sent in {', '.join(map(str, BITS))} bits a value, got {settings.bits}")
        budget = Budget.if_given(settings.distil_steps, settings.distil_seconds)

        def distil(statistics: ClassStatistics) -> SyntheticSet:
            return distiller.distil(
                statistics,
                settings.images_per_class,
                seed=derive_seed(settings.seed, "distil statistics"),
                budget=budget,
                device=settings.device,
                absent_classes="skip",
            )

        request = settings.statistics_request(test, spec.settings())
        expectation = StatisticsExpectation(spec, test.spec, settings.slack)
        return cls(request, expectation, distil, learner, collector, total)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node for its sums; the model stays here."""
        content = RecordDict({CONFIG: self.request.to_record(server_round)})
        messages = [Message(content, node, self.kind) for node in self.collector.wait_for_nodes(grid)]
        self.collector.expect_answers(messages)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sums, add them in the order of partitions, distil, and train a fresh model on the result.

        Raises:
            QuorumError: too few answers could be used.
            DivergenceError: distillation or training diverged.
        """
        self.statistics, heard = self._total(server_round, replies)
        self.synthetic = finished(self._distilled(self.statistics))
        weights = self.learner.learn(self.synthetic, server_round)
        return weights, MetricRecord({"statistics": heard, "samples": len(self.synthetic)})

    def state(self) -> State:
        """What was distilled."""
        return {"synthetic": set_as_state(self.synthetic)}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self.synthetic = set_from_state(state["synthetic"])

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node sends class-wise sums of features in %d views", self.request.specification.views)

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[ClassStatistics, int]:
        """The statistics of all nodes that were heard, and how many these were."""
        answers = self.collector.iter_replies(server_round, replies, self._read)
        return self._added([answer.value for answer in answers]), len(answers)

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
