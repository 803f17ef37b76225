"""Flower's other averaging strategies, guarded as FedAvg is: what they add to it is Flower's own code.

Flower's FedAdam corrects the bias of its moments by t + 1 where Kingma and Ba (2015) have t, so that its first steps
are shorter than theirs; Reddi et al. (2021) correct nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from flwr.app import RecordDict
from flwr.serverapp import strategy as flower

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import Count, Momentum, Natural, NonNegative, Positive, Range, settings
from strategies.federated.collector import Answer, QuorumError
from strategies.federated.fedavg import Averaging, FedAvg, ValidatedFedAvg
from strategies.federated.state import State, arrays_of, tensor_of, tensors_of
from strategies.federated.strategy import ServerContext, register_strategy


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
