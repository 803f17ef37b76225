"""Federated learning on Flower: synthetic sets instead of models, and the baselines they are compared with."""

from strategies.federated.averaging import GuardedFedAdam, GuardedFedAvgM, GuardedFedProx
from strategies.federated.client import make_client_app
from strategies.federated.compressed import CompressedFedAvg
from strategies.federated.dynafed import DynaFed
from strategies.federated.fedavg import GuardedFedAvg
from strategies.federated.in_process import InProcessGrid
from strategies.federated.learner import Learner
from strategies.federated.ledger import ByteLedger
from strategies.federated.metered import MeteredGrid
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.one_shot_ensemble import OneShotEnsemble
from strategies.federated.reception import QuorumError, Reception
from strategies.federated.registry import build_strategy, list_strategies
from strategies.federated.rejections import Rejection
from strategies.federated.requests import DistilRequest, StatisticsRequest, TrainRequest
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.scaffold import Scaffold
from strategies.federated.secure import SecureOptions, SecureStatistics
from strategies.federated.server import run_server
from strategies.federated.settings import FederatedSettings
from strategies.federated.statistics_first import StatisticsFirst
from strategies.federated.surrogate import SurrogateRounds

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
