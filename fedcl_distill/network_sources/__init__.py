"""Sources of networks: through which networks an objective looks at both sides."""

from fedcl_distill.network_sources.base import Drawn, NetworkSource, Supply
from fedcl_distill.network_sources.experts import ExpertTrajectories, GivenTrajectory
from fedcl_distill.network_sources.pools import Interpolated, OnlinePool, PretrainedPool
from fedcl_distill.network_sources.simple import AroundNetwork, FreshEnsemble, FreshRandom, NoNetwork
from fedcl_distill.network_sources.trained import TrainedOnReal, TrainedOnSynthetic, WatchedTraining

__all__ = [
    "AroundNetwork",
    "Drawn",
    "ExpertTrajectories",
    "FreshEnsemble",
    "FreshRandom",
    "GivenTrajectory",
    "Interpolated",
    "NetworkSource",
    "NoNetwork",
    "OnlinePool",
    "PretrainedPool",
    "Supply",
    "TrainedOnReal",
    "TrainedOnSynthetic",
    "WatchedTraining",
]
