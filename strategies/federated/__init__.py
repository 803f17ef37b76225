"""Federated learning on Flower: synthetic sets instead of models, and the baselines they are compared with."""

from strategies.federated.averaging import ValidatedFedAdam, ValidatedFedAvgM, ValidatedFedProx
from strategies.federated.client import make_client_app
from strategies.federated.collector import QuorumError, Rejection, ReplyCollector
from strategies.federated.compressed import CompressedFedAvg
from strategies.federated.dynafed import DynaFed
from strategies.federated.fedavg import ValidatedFedAvg
from strategies.federated.feddm import FedDM
from strategies.federated.grid import ByteLedger, InProcessGrid, MeteredGrid
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.one_shot_ensemble import OneShotEnsemble
from strategies.federated.registry import build_strategy, list_strategies
from strategies.federated.requests import DistilRequest, StatisticsRequest, TrainRequest
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.run import run_server
from strategies.federated.scaffold import Scaffold
from strategies.federated.secure import SecureOptions, SecureStatistics
from strategies.federated.settings import FederatedSettings
from strategies.federated.statistics_first import FederatedStatistics

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
