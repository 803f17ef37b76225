"""One-shot federated learning by dataset distillation.

The server asks every node once to distil its data. Each answers with a synthetic set. The server checks the sets,
unites them, and trains the global model on the union (the common core of Xiong et al. 2023, FedDM, at one round, and
of Song et al. 2023, FedD3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet, union
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.messages import unpack_set
from strategies.federated.reception import Answer, Reception
from strategies.federated.requests import CONFIG, DISTIL, DistilRequest
from strategies.federated.room import room_for


class OneShotUnion(Strategy):
    """Collects each node's synthetic set, unites them, and trains the global model on the union.

    Args:
        request: what every node is asked.
        expectation: what a synthetic set must look like.
        learner: trains the global model.
        reception: waits for nodes and turns bad answers away.
        limits: of a payload; by default, what an honest answer to the request may take.

    Attributes:
        synthetic: the union, once the round is over.
    """

    kind = DISTIL

    def __init__(
        self,
        request: DistilRequest,
        expectation: Expectation,
        learner: Learner,
        reception: Reception,
        limits: Limits | None = None,
    ) -> None:
        self.request = request
        self.expectation = expectation
        self.learner = learner
        self.reception = reception
        self.limits = limits or room_for(request, expectation.sample_shape, len(expectation.class_names)).limits
        self.synthetic: SyntheticSet | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node to distil its data; the model stays here."""
        content = self._question(server_round)
        messages = [Message(content, node, self.kind) for node in self.reception.wait_for_nodes(grid)]
        self.reception.expect_answers(messages)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sets, unite them in the order of partitions, and train a fresh model on the union.

        Raises:
            QuorumError: too few sets could be used.
        """
        answers = self.reception.hear(server_round, replies, self._read)
        self.synthetic = self._unite(answers)
        weights = self.learner.learn(self.synthetic, server_round)
        return weights, MetricRecord({"sets": len(answers), "samples": len(self.synthetic)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: the server evaluates."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing: the server evaluates."""

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node distils by %s, size %s", self.request.method, self.request.size)

    def _question(self, server_round: int) -> RecordDict:
        return RecordDict({CONFIG: self.request.to_record(server_round)})

    def _unite(self, answers: Sequence[Answer[SyntheticSet]]) -> SyntheticSet:
        provenance = {
            "union_of": [answer.facts.partition for answer in answers],
            "method": self.request.method,
            "seed": self.request.seed,
        }
        return union([answer.value for answer in answers], provenance)

    def _read(self, content: RecordDict) -> SyntheticSet:
        return unpack_set(content, self.limits, self.expectation)
