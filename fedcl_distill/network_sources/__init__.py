"""Sources of networks: through which networks an objective looks at both sides."""

from fedcl_distill.network_sources.base import (
    AroundNetwork,
    DrawnNetwork,
    FreshEnsemble,
    FreshRandom,
    NetworkSampler,
    NetworkSource,
    NoNetwork,
)
from fedcl_distill.network_sources.experts import ExpertTrajectories, GivenTrajectory
from fedcl_distill.network_sources.pools import Interpolated, OnlinePool, PretrainedPool
from fedcl_distill.network_sources.trained import TrainedOnReal, TrainedOnSynthetic, WatchedTraining

__all__ = [
    "AroundNetwork",
    "DrawnNetwork",
    "ExpertTrajectories",
    "FreshEnsemble",
    "FreshRandom",
    "GivenTrajectory",
    "Interpolated",
    "NetworkSampler",
    "NetworkSource",
    "NoNetwork",
    "OnlinePool",
    "PretrainedPool",
    "TrainedOnReal",
    "TrainedOnSynthetic",
    "WatchedTraining",
]
