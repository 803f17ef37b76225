"""Sources of networks: through which networks an objective looks at both sides."""

from fedcl_distill.network_sources.around import AroundNetwork
from fedcl_distill.network_sources.base import Drawn, NetworkSource, Supply
from fedcl_distill.network_sources.ensemble import FreshEnsemble
from fedcl_distill.network_sources.experts import ExpertTrajectories
from fedcl_distill.network_sources.fresh import FreshRandom
from fedcl_distill.network_sources.given_trajectory import GivenTrajectory
from fedcl_distill.network_sources.interpolated import Interpolated
from fedcl_distill.network_sources.none import NoNetwork
from fedcl_distill.network_sources.online_pool import OnlinePool
from fedcl_distill.network_sources.pretrained_pool import PretrainedPool
from fedcl_distill.network_sources.trained_on_real import TrainedOnReal
from fedcl_distill.network_sources.trained_on_synthetic import TrainedOnSynthetic
from fedcl_distill.network_sources.watched_training import WatchedTraining

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
