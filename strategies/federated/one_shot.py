"""One-shot federated learning by dataset distillation.

The server asks every node once to distil its data. Each answers with a synthetic set. The server checks the sets,
unites them, and trains the global model on the union (the common core of Xiong et al. 2023, FedDM, at one round, and
of Song et al. 2023, FedD3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import AggregatedSets, SetAggregator
from strategies.federated.collector import ReplyCollector
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.requests import CONFIG, DISTIL, DistilRequest
from strategies.federated.state import State
from strategies.federated.train_only import TrainOnly


class OneShotUnion(TrainOnly):
    """Collects each node's synthetic set, unites them, and trains the global model on the union.

    Args:
        request: what every node is asked.
        gathering: how their sets are checked and put together.
        learner: trains the global model.
        collector: waits for nodes and turns bad answers away.

    Attributes:
        gathered: all sets as one, once the round is over.
    """

    kind = DISTIL

    def __init__(
        self, request: DistilRequest, gathering: SetAggregator, learner: Learner, collector: ReplyCollector
    ) -> None:
        self.request = request
        self.gathering = gathering
        self.learner = learner
        self.collector = collector
        self.gathered: AggregatedSets | None = None

    @property
    def synthetic(self) -> SyntheticSet | None:
        """What the global model was trained on, once the round is over."""
        return None if self.gathered is None else self.gathered.synthetic

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node to distil its data; the model stays here."""
        return self.ask(grid, self._question(server_round))

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sets, unite them in the order of partitions, and train a fresh model on the union.

        Raises:
            QuorumError: too few sets could be used.
        """
        gathered = self.gather(server_round, replies)
        weights = self.learner.learn(gathered.synthetic, server_round, sample_weights=gathered.weights)
        return weights, gathered.metrics

    def ask(self, grid: Grid, content: RecordDict) -> list[Message]:
        """One message of this content to every node."""
        messages = [Message(content, node, self.kind) for node in self.collector.wait_for_nodes(grid)]
        self.collector.expect_answers(messages)
        return messages

    def gather(self, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """All valid sets as one, which is kept, too."""
        return self._keep(self.gathering.gather(self.collector, server_round, replies))

    def state(self) -> State:
        """What was gathered, and how often sets were merged: this names the next draws."""
        merging, gathered = self.gathering.merging, self.gathered
        return {
            "merges": 0 if merging is None else merging.merges,
            "gathered": None if gathered is None else gathered.state(),
        }

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self.gathered = None if state["gathered"] is None else AggregatedSets.of_state(state["gathered"])
        if self.gathering.merging is not None:
            self.gathering.merging.merges = state["merges"]

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node distils by %s, size %s", self.request.method, self.request.size)

    def _question(self, server_round: int) -> RecordDict:
        return RecordDict({CONFIG: self.request.to_record(server_round)})

    def _keep(self, gathered: AggregatedSets) -> AggregatedSets:
        provenance = {
            "union_of": list(gathered.partitions),
            "method": self.request.method,
            "seed": self.request.seed,
        }
        self.gathered = replace(gathered, synthetic=replace(gathered.synthetic, provenance=provenance))
        return self.gathered
