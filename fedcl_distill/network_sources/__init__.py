"""Sources of networks: through which networks an objective looks at both sides."""

from fedcl_distill.network_sources.base import Drawn, NetworkSource, Supply
from fedcl_distill.network_sources.fresh import FreshRandom
from fedcl_distill.network_sources.none import NoNetwork

__all__ = ["Drawn", "FreshRandom", "NetworkSource", "NoNetwork", "Supply"]
