"""Networks for any sample shape, and the sources that hand them to an objective."""

from fedcl_distill.networks.architectures import Architecture, default_architecture, list_architectures
from fedcl_distill.networks.base import Network
from fedcl_distill.networks.sources import FreshRandom, NetworkSource

__all__ = ["Architecture", "FreshRandom", "Network", "NetworkSource", "default_architecture", "list_architectures"]
