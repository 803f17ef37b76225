"""FedAvg (McMahan et al. 2017) and its kin, Flower's own, with checks of every answer.

The server sends the model to every node. Each trains it on its data and sends it back. The server averages the models,
weighted by the number of samples.

Flower's FedAdam corrects the bias of its moments by t + 1 where Kingma and Ba (2015) have t, so that its first steps
are shorter than theirs; Reddi et al. (2021) correct nothing.
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

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.robust import capped, check_share
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Momentum, Natural, NonNegative, Positive, Range, settings
from strategies.federated.aggregation import Answer, QuorumError, ReplyCollector
from strategies.federated.answers import (
    METRICS,
    WEIGHTS,
    LargestModel,
    State,
    arrays_of,
    read_weights,
    tensor_of,
    tensors_of,
    typed_like,
    unpack_weights,
)
from strategies.federated.local_training import LocalTraining, TrainRequest, train
from strategies.federated.strategy import ClientStep, FederatedStrategy, ServerContext, register_strategy


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
        return self.local.request(context.seed, context.learner.architecture_text)

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


class ValidatedFedProx(ValidatedFedAvg, flower.FedProx):
    """Nodes are pulled towards the global model while they train (Li et al. 2020); takes ``proximal_mu``."""


class ValidatedFedAvgM(ValidatedFedAvg, flower.FedAvgM):
    """The server moves with momentum (Hsu et al. 2019); takes ``server_learning_rate`` and ``server_momentum``."""

    def state(self) -> State:
        """The momentum, and the model as Flower's strategy holds it."""
        current, momentum = self.current_arrays, self.momentum_vector
        return {
            "current": None if current is None else tensors_of(current),
            "momentum": None if momentum is None else [tensor_of(one) for one in momentum],
        }

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        current, momentum = state["current"], state["momentum"]
        self.current_arrays = None if current is None else arrays_of(current)
        self.momentum_vector = None if momentum is None else [one.numpy() for one in momentum]


class ValidatedFedAdam(ValidatedFedAvg, flower.FedAdam):
    """The server moves by Adam (Reddi et al. 2021); takes ``eta``, ``beta_1``, ``beta_2`` and ``tau``."""

    def state(self) -> State:
        """Both moments."""
        moments = {"first": self.m_t, "second": self.v_t}
        return {
            which: None if one is None else {name: tensor_of(value) for name, value in one.items()}
            for which, one in moments.items()
        }

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self.m_t, self.v_t = (
            None if one is None else {name: value.numpy() for name, value in one.items()}
            for one in (state["first"], state["second"])
        )


class ValidatedKrum(ValidatedFedAvg, flower.MultiKrum):
    """The server takes the models nearest to others (Blanchard et al. 2017).

    Takes ``num_malicious_nodes`` and ``num_nodes_to_select``.
    """


class ValidatedBulyan(ValidatedFedAvg, flower.Bulyan):
    """Multi-Krum, then a trimmed mean of each weight (El Mhamdi et al. 2018); takes ``num_malicious_nodes``, f.

    Below 4 f + 3 answers, Flower would keep the old model without a word to the caller; here the round fails.
    """

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        needed = 4 * self.num_malicious_nodes + 3
        if len(answers) < needed:
            raise QuorumError(f"{len(answers)} valid answers, Bulyan needs {needed}")


class ValidatedTrimmedMean(ValidatedFedAvg, flower.FedTrimmedAvg):
    """The mean of each weight without its extremes (Yin et al. 2018); takes ``beta``, the share cut on either side."""


class ValidatedMedian(ValidatedFedAvg, flower.FedMedian):
    """The median of each weight (Yin et al. 2018)."""


@register_strategy("fedprox")
@settings
class FedProx(FedAvg):
    """FedAvg whose nodes are pulled towards the global model (Li et al. 2020).

    Attributes:
        mu: weighs the proximal term.
    """

    mu: NonNegative = 0.01

    def server(self, context: ServerContext) -> ValidatedFedProx:
        return ValidatedFedProx(*self.parts(context), proximal_mu=self.mu, client_share=self.client_share)


@register_strategy("fedavgm")
@settings
class FedAvgM(FedAvg):
    """FedAvg whose server moves with momentum (Hsu et al. 2019)."""

    server_learning_rate: Positive = 1.0
    server_momentum: Momentum = 0.9

    def server(self, context: ServerContext) -> ValidatedFedAvgM:
        return ValidatedFedAvgM(
            *self.parts(context),
            client_share=self.client_share,
            server_learning_rate=self.server_learning_rate,
            server_momentum=self.server_momentum,
        )


@register_strategy("fedadam")
@settings
class FedAdam(FedAvg):
    """FedAvg whose server moves by Adam (Reddi et al. 2021).

    Attributes:
        server_learning_rate, beta_1, beta_2: of Adam.
        tau: bounds how large a step for a small gradient gets.
    """

    server_learning_rate: Positive = 0.03
    beta_1: Momentum = 0.9
    beta_2: Momentum = 0.99
    tau: Positive = 0.001

    def server(self, context: ServerContext) -> ValidatedFedAdam:
        return ValidatedFedAdam(
            *self.parts(context),
            client_share=self.client_share,
            eta=self.server_learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            tau=self.tau,
        )


@register_strategy("krum")
@settings
class Krum(Averaging):
    """FedAvg over the models nearest to others (Blanchard et al. 2017).

    Attributes:
        malicious: clients that are reckoned with; there must be at least 2 · malicious + 3.
        selected: models that are averaged.
    """

    malicious: Natural = 1
    selected: Count = 1

    def server(self, context: ServerContext) -> ValidatedKrum:
        clients = context.collector.nodes
        _require_clients("krum", clients, 2 * self.malicious + 3, f"2 · {self.malicious} + 3")
        most = clients - self.malicious
        if self.selected > most:
            raise SettingsError(f"selected must be in [1, {most}], got {self.selected}")
        return ValidatedKrum(
            *self.parts(context), num_malicious_nodes=self.malicious, num_nodes_to_select=self.selected
        )


@register_strategy("bulyan")
@settings
class Bulyan(Averaging):
    """Krum, several times over, then a trimmed mean of each weight (El Mhamdi et al. 2018).

    Attributes:
        malicious: clients that are reckoned with; there must be at least 4 · malicious + 3.
    """

    malicious: Natural = 1

    def server(self, context: ServerContext) -> ValidatedBulyan:
        _require_clients("bulyan", context.collector.nodes, 4 * self.malicious + 3, f"4 · {self.malicious} + 3")
        return ValidatedBulyan(*self.parts(context), num_malicious_nodes=self.malicious)


@register_strategy("trimmed-mean")
@settings
class TrimmedMean(Averaging):
    """FedAvg by the mean of each weight without its extremes; all clients count alike (Yin et al. 2018).

    Attributes:
        trim: the share of the clients that is left out on either side.
    """

    trim: Annotated[float, Range(ge=0, lt=0.5)] = 0.3

    def server(self, context: ServerContext) -> ValidatedTrimmedMean:
        return ValidatedTrimmedMean(*self.parts(context), beta=self.trim)


@register_strategy("median")
@settings
class Median(Averaging):
    """FedAvg by the median of each weight; all clients count alike (Yin et al. 2018)."""

    def server(self, context: ServerContext) -> ValidatedMedian:
        return ValidatedMedian(*self.parts(context))


def _require_clients(name: str, clients: int, needed: int, rule: str) -> None:
    if clients < needed:
        raise SettingsError(f"{name} needs at least {rule} clients (malicious), got {clients}")
