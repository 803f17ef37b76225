"""Flower's other averaging strategies, guarded as FedAvg is: what they add to it is Flower's own code.

Flower's FedAdam corrects the bias of its moments by t + 1 where Kingma and Ba (2015) have t, so that its first steps
are shorter than theirs; Reddi et al. (2021) correct nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import RecordDict
from flwr.serverapp.strategy import Bulyan, FedAdam, FedAvgM, FedMedian, FedProx, FedTrimmedAvg, MultiKrum

from strategies.federated.collector import Answer, QuorumError
from strategies.federated.fedavg import ValidatedFedAvg
from strategies.federated.state import State, arrays_of, tensor_of, tensors_of


class ValidatedFedProx(ValidatedFedAvg, FedProx):
    """Nodes are pulled towards the global model while they train (Li et al. 2020); takes ``proximal_mu``."""


class ValidatedFedAvgM(ValidatedFedAvg, FedAvgM):
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


class ValidatedFedAdam(ValidatedFedAvg, FedAdam):
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


class ValidatedKrum(ValidatedFedAvg, MultiKrum):
    """The server takes the models nearest to others (Blanchard et al. 2017).

    Takes ``num_malicious_nodes`` and ``num_nodes_to_select``.
    """


class ValidatedBulyan(ValidatedFedAvg, Bulyan):
    """Multi-Krum, then a trimmed mean of each weight (El Mhamdi et al. 2018); takes ``num_malicious_nodes``, f.

    Below 4 f + 3 answers, Flower would keep the old model without a word to the caller; here the round fails.
    """

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        needed = 4 * self.num_malicious_nodes + 3
        if len(answers) < needed:
            raise QuorumError(f"{len(answers)} valid answers, Bulyan needs {needed}")


class ValidatedTrimmedMean(ValidatedFedAvg, FedTrimmedAvg):
    """The mean of each weight without its extremes (Yin et al. 2018); takes ``beta``, the share cut on either side."""


class ValidatedMedian(ValidatedFedAvg, FedMedian):
    """The median of each weight (Yin et al. 2018)."""
