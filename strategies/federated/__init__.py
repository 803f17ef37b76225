"""Federated learning on Flower: synthetic sets instead of models, and the baselines they are compared with."""

from strategies.federated.algorithms.averaging import ValidatedFedAdam, ValidatedFedAvgM, ValidatedFedProx
from strategies.federated.algorithms.compressed import CompressedFedAvg
from strategies.federated.algorithms.dynafed import DynaFed
from strategies.federated.algorithms.fedavg import ValidatedFedAvg
from strategies.federated.algorithms.feddm import FedDM
from strategies.federated.algorithms.one_shot import OneShotUnion
from strategies.federated.algorithms.one_shot_ensemble import OneShotEnsemble
from strategies.federated.algorithms.scaffold import Scaffold
from strategies.federated.algorithms.statistics_first import FederatedStatistics
from strategies.federated.grids.in_process import InProcessGrid
from strategies.federated.grids.ledger import ByteLedger
from strategies.federated.grids.metered import MeteredGrid
from strategies.federated.messages.requests import DistilRequest, StatisticsRequest, TrainRequest
from strategies.federated.node.client import make_client_app
from strategies.federated.registry import build_strategy, list_strategies
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.secure import SecureOptions, SecureStatistics
from strategies.federated.server.collector import QuorumError, ReplyCollector
from strategies.federated.server.learner import Learner
from strategies.federated.server.rejections import Rejection
from strategies.federated.server.run import run_server
from strategies.federated.settings import FederatedSettings

__all__ = [
    "ByteLedger",
    "CompressedFedAvg",
    "DistilRequest",
    "DynaFed",
    "FedDM",
    "FederatedResult",
    "FederatedSettings",
    "FederatedStatistics",
    "InProcessGrid",
    "Learner",
    "MeteredGrid",
    "OneShotEnsemble",
    "OneShotUnion",
    "QuorumError",
    "Rejection",
    "ReplyCollector",
    "RoundResult",
    "Scaffold",
    "SecureOptions",
    "SecureStatistics",
    "StatisticsRequest",
    "TrainRequest",
    "ValidatedFedAdam",
    "ValidatedFedAvg",
    "ValidatedFedAvgM",
    "ValidatedFedProx",
    "build_strategy",
    "list_strategies",
    "make_client_app",
    "run_server",
]
