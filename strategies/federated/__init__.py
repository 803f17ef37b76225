"""Federated learning on Flower: synthetic sets instead of models, and the baselines they are compared with."""

from strategies.federated.algorithms.averaging import GuardedFedAdam, GuardedFedAvgM, GuardedFedProx
from strategies.federated.algorithms.compressed import CompressedFedAvg
from strategies.federated.algorithms.dynafed import DynaFed
from strategies.federated.algorithms.fedavg import GuardedFedAvg
from strategies.federated.algorithms.feddm import SurrogateRounds
from strategies.federated.algorithms.one_shot import OneShotUnion
from strategies.federated.algorithms.one_shot_ensemble import OneShotEnsemble
from strategies.federated.algorithms.scaffold import Scaffold
from strategies.federated.algorithms.statistics_first import StatisticsFirst
from strategies.federated.grids.in_process import InProcessGrid
from strategies.federated.grids.ledger import ByteLedger
from strategies.federated.grids.metered import MeteredGrid
from strategies.federated.messages.requests import DistilRequest, StatisticsRequest, TrainRequest
from strategies.federated.node.client import make_client_app
from strategies.federated.registry import build_strategy, list_strategies
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.secure import SecureOptions, SecureStatistics
from strategies.federated.server.learner import Learner
from strategies.federated.server.reception import QuorumError, Reception
from strategies.federated.server.rejections import Rejection
from strategies.federated.server.run import run_server
from strategies.federated.settings import FederatedSettings

__all__ = [
    "ByteLedger",
    "CompressedFedAvg",
    "DistilRequest",
    "DynaFed",
    "FederatedResult",
    "FederatedSettings",
    "GuardedFedAdam",
    "GuardedFedAvg",
    "GuardedFedAvgM",
    "GuardedFedProx",
    "InProcessGrid",
    "Learner",
    "MeteredGrid",
    "OneShotEnsemble",
    "OneShotUnion",
    "QuorumError",
    "Reception",
    "Rejection",
    "RoundResult",
    "Scaffold",
    "SecureOptions",
    "SecureStatistics",
    "StatisticsFirst",
    "StatisticsRequest",
    "SurrogateRounds",
    "TrainRequest",
    "build_strategy",
    "list_strategies",
    "make_client_app",
    "run_server",
]
