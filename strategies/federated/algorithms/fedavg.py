"""FedAvg (McMahan et al. 2017), Flower's own, with a guard at the door.

The server sends the model to every node. Each trains it on its data and sends it back. The server averages the models,
weighted by the number of samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from strategies.federated.messages.answers import METRICS, WEIGHTS, Facts, unpack_weights
from strategies.federated.messages.arrays import read_weights, typed_like
from strategies.federated.messages.requests import TrainRequest
from strategies.federated.server.reception import Answer, Reception
from strategies.federated.server.state import State


class GuardedFedAvg(FedAvg):
    """Flower's FedAvg, which waits for its nodes, averages in a fixed order, and turns bad answers away.

    Everything else is Flower's, so that a subclass of this and of one of Flower's other averaging strategies, in
    this order, guards that one.

    Args:
        request: what every node is asked.
        template: a network of the global model's architecture; answers must have its weights' names and shapes.
        reception: waits for nodes and turns bad answers away.
        flower: further arguments of Flower's strategy.
    """

    def __init__(self, request: TrainRequest, template: Network, reception: Reception, **flower: Any) -> None:
        super().__init__(min_train_nodes=1, min_available_nodes=1, **flower)
        self.request = request
        self.template = template
        self.reception = reception

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send the model and the request to every node."""
        self.reception.wait_for_nodes(grid)
        config.update(self.request.to_record(server_round))
        with _python_random(derive_seed(self.request.seed, "sample", server_round)):
            messages = list(super().configure_train(server_round, arrays, config, grid))
        messages = [self._addressed(message) for message in messages]
        messages.sort(key=lambda message: message.metadata.dst_node_id)
        self.reception.expect_answers(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the models that are whole and finite.

        Raises:
            QuorumError: too few models could be used.
        """
        answers = self.reception.hear(server_round, replies, self._read)
        self._take(answers)
        for answer in answers:
            answer.message.content = answer.value
        arrays, metrics = super().aggregate_train(server_round, [answer.message for answer in answers])
        return arrays and typed_like(arrays, self.template), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: the server evaluates."""
        return []

    def state(self) -> State:
        """Nothing: the global model is all that goes from round to round."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""

    def forget_nodes(self) -> None:
        """Nothing: nodes keep nothing that the server mirrors."""

    def _addressed(self, message: Message) -> Message:
        """For subclasses: ``message`` as it goes to its node."""
        return message

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        """For subclasses: take what answers hold beside what Flower averages."""

    def _read(self, content: RecordDict) -> RecordDict:
        """Only what Flower averages: it refuses a whole round where answers differ in what else they hold."""
        weights = unpack_weights(content)
        read_weights(weights, self.template)
        return self._averageable(weights, content)

    def _averageable(self, weights: ArrayRecord, content: RecordDict) -> RecordDict:
        metrics = MetricRecord({self.weighted_by_key: Facts.of(content).examples})
        return RecordDict({WEIGHTS: weights, METRICS: metrics})


@contextmanager
def _python_random(seed: int) -> Iterator[None]:
    """Flower samples nodes with Python's global generator: seed it inside the block and put its state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
