"""FedAvg (McMahan et al. 2017), Flower's own, with a guard at the door.

The server sends the model to every node. Each trains it on its data and sends it back. The server averages the models,
weighted by the number of samples.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from torch import Tensor

from fedcl_distill.networks import Network
from fedcl_distill.robust import capped, check_share
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Range, settings
from strategies.federated.answers import METRICS, WEIGHTS, unpack_weights
from strategies.federated.collector import Answer, ReplyCollector
from strategies.federated.local_training import LocalTraining, TrainRequest, train
from strategies.federated.state import State
from strategies.federated.strategy import ClientStep, FederatedStrategy, ServerContext, register_strategy
from strategies.federated.weights import LargestModel, read_weights, typed_like


class ValidatedFedAvg(flower.FedAvg):
    """Flower's FedAvg, which waits for its nodes, averages in a fixed order, and turns bad answers away.

    Everything else is Flower's, so that a subclass of this and of one of Flower's other averaging strategies, in
    this order, guards that one.

    Args:
        request: what every node is asked.
        template: a network of the global model's architecture; answers must have its weights' names and shapes.
        collector: waits for nodes and turns bad answers away.
        client_share: the most, in (0, 1], that one node may count for among all, whatever number of samples it says it
            has; 1 believes all.
        flower: further arguments of Flower's strategy.

    Raises:
        SettingsError: the share is out of range.
    """

    def __init__(
        self,
        request: TrainRequest,
        template: Network,
        collector: ReplyCollector,
        *,
        client_share: float = 1.0,
        **flower: Any,
    ) -> None:
        super().__init__(min_train_nodes=1, min_available_nodes=1, **flower)
        self.request = request
        self.template = template
        self.collector = collector
        self.client_share = check_share(client_share)
        self._largest = LargestModel.after({}, template)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send the model and the request to every node."""
        self._largest = LargestModel.after(self._sent(arrays), self.template)
        self.collector.wait_for_nodes(grid)
        config.update(self.request.to_record(server_round))
        with _python_random(derive_seed(self.request.seed, "sample", server_round)):
            messages = list(super().configure_train(server_round, arrays, config, grid))
        messages = [self._addressed(message) for message in messages]
        messages.sort(key=lambda message: message.metadata.dst_node_id)
        self.collector.expect_answers(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the models that are whole and finite.

        Raises:
            QuorumError: too few models could be used.
        """
        answers = self.collector.iter_replies(server_round, replies, self._read)
        self._take(answers)
        for answer, examples in zip(answers, self._believed(answers), strict=True):
            answer.value[METRICS] = MetricRecord({self.weighted_by_key: examples})
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

    def _sent(self, arrays: ArrayRecord) -> dict[str, Tensor]:
        """For subclasses: the weights in what nodes are sent."""
        return read_weights(arrays, self.template)

    def _addressed(self, message: Message) -> Message:
        """For subclasses: ``message`` as it goes to its node."""
        return message

    def _believed(self, answers: Sequence[Answer[RecordDict]]) -> list[float]:
        """The weight of each model: its node's number of samples, as far as that is believed."""
        declared = torch.tensor([answer.facts.examples for answer in answers])
        return capped(declared, self.client_share).tolist()

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        """For subclasses: take what answers hold beside what Flower averages."""

    def _read(self, content: RecordDict) -> RecordDict:
        """Only what Flower averages: it refuses a whole round where answers differ in what else they hold."""
        weights = unpack_weights(content)
        self._largest.check(read_weights(weights, self.template), self.template)
        return RecordDict({WEIGHTS: weights})


ClientShare = Annotated[float, Range(gt=0, le=1)]
"""The most that one client may count for among all, whatever it says of itself; 1 believes all."""


@settings
class Averaging(FederatedStrategy):
    """Base of strategies whose nodes train the global model and send what became of it.

    Attributes:
        local: how every node trains.
    """

    local: LocalTraining = LocalTraining()

    client_steps = (ClientStep("", train),)
    needs_model = True

    def request(self, context: ServerContext) -> TrainRequest:
        """What nodes are asked."""
        return self.local.request(context.test, context.seed, context.learner.architecture_text)

    def parts(self, context: ServerContext) -> tuple[TrainRequest, Network, ReplyCollector]:
        """The arguments of the server's side."""
        return self.request(context), context.learner.fresh(), context.collector


@register_strategy("fedavg")
@settings
class FedAvg(Averaging):
    """Models, every round, averaged by the number of samples behind them (McMahan et al. 2017).

    Attributes:
        client_share: the most, in (0, 1], that one client may count for, whatever it says it has.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    client_share: ClientShare = 1.0

    def server(self, context: ServerContext) -> ValidatedFedAvg:
        return ValidatedFedAvg(*self.parts(context), client_share=self.client_share)


@register_strategy("one-shot-average")
@settings
class OneShotAverage(FedAvg):
    """Models, once, each trained for ``epochs``, whatever ``local`` says of them."""

    epochs: Count = 50

    def server(self, context: ServerContext) -> ValidatedFedAvg:
        context.require_one_round("one-shot-average")
        return super().server(context)

    def request(self, context: ServerContext) -> TrainRequest:
        return replace(super().request(context), epochs=self.epochs)


@contextmanager
def _python_random(seed: int) -> Iterator[None]:
    """Flower samples nodes with Python's global generator: seed it inside the block and put its state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
