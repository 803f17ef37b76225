"""Federated learning on Flower: synthetic sets instead of models, and the baselines they are compared with."""

from strategies.federated.aggregation import QuorumError, Rejection, ReplyCollector
from strategies.federated.client import add_distilling, make_client_app
from strategies.federated.compression import FedPAQ, TopKFedAvg
from strategies.federated.distillation import Distillation, DistilRequest
from strategies.federated.dynafed import DynaFed
from strategies.federated.feature_sums import AFL, Fed3R, FedCGS, FederatedFeatures, FedNCM, FedPFT
from strategies.federated.fedavg import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    Krum,
    Median,
    OneShotAverage,
    TrimmedMean,
)
from strategies.federated.feddm import FedDM
from strategies.federated.federated_statistics import FederatedStatistics
from strategies.federated.grid import ByteLedger, InProcessGrid, MeteredGrid
from strategies.federated.learner import Learner
from strategies.federated.local_training import LocalTraining, TrainRequest
from strategies.federated.one_shot import OneShot
from strategies.federated.one_shot_ensemble import OneShotEnsemble
from strategies.federated.private_statistics import PrivacyOptions
from strategies.federated.requests import StatisticsRequest
from strategies.federated.result import FederatedResult, RoundResult
from strategies.federated.run import CollectedSets, RunOptions, collect_sets, run_server
from strategies.federated.scaffold import Scaffold
from strategies.federated.secure import SecureOptions
from strategies.federated.strategy import (
    STRATEGIES,
    ClientStep,
    FederatedStrategy,
    ServerContext,
    list_strategies,
    register_strategy,
)

__all__ = [
    "AFL",
    "STRATEGIES",
    "Bulyan",
    "ByteLedger",
    "ClientStep",
    "CollectedSets",
    "DistilRequest",
    "Distillation",
    "DynaFed",
    "Fed3R",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedCGS",
    "FedDM",
    "FedNCM",
    "FedPAQ",
    "FedPFT",
    "FedProx",
    "FederatedFeatures",
    "FederatedResult",
    "FederatedStatistics",
    "FederatedStrategy",
    "InProcessGrid",
    "Krum",
    "Learner",
    "LocalTraining",
    "Median",
    "MeteredGrid",
    "OneShot",
    "OneShotAverage",
    "OneShotEnsemble",
    "PrivacyOptions",
    "QuorumError",
    "Rejection",
    "ReplyCollector",
    "RoundResult",
    "RunOptions",
    "Scaffold",
    "SecureOptions",
    "ServerContext",
    "StatisticsRequest",
    "TopKFedAvg",
    "TrainRequest",
    "TrimmedMean",
    "add_distilling",
    "collect_sets",
    "list_strategies",
    "make_client_app",
    "register_strategy",
    "run_server",
]
