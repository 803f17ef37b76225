"""Flower's other averaging strategies, guarded as FedAvg is: what they add to it is Flower's own code.

Flower's FedAdam corrects the bias of its moments by t + 1 where Kingma and Ba (2015) have t, so that its first steps
are shorter than theirs; Reddi et al. (2021) correct nothing.
"""

from __future__ import annotations

from flwr.serverapp.strategy import FedAdam, FedAvgM, FedProx

from strategies.federated.fedavg import GuardedFedAvg


class GuardedFedProx(GuardedFedAvg, FedProx):
    """Nodes are pulled towards the global model while they train (Li et al. 2020); takes ``proximal_mu``."""


class GuardedFedAvgM(GuardedFedAvg, FedAvgM):
    """The server moves with momentum (Hsu et al. 2019); takes ``server_learning_rate`` and ``server_momentum``."""


class GuardedFedAdam(GuardedFedAvg, FedAdam):
    """The server moves by Adam (Reddi et al. 2021); takes ``eta``, ``beta_1``, ``beta_2`` and ``tau``."""
