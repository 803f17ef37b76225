"""Networks for any sample shape."""

from fedcl_distill.networks.architectures import Architecture, default_architecture, list_architectures
from fedcl_distill.networks.base import Network
from fedcl_distill.networks.limits import DEFAULT_NETWORK_LIMITS, NetworkLimits, architectures_in

__all__ = [
    "DEFAULT_NETWORK_LIMITS",
    "Architecture",
    "Network",
    "NetworkLimits",
    "architectures_in",
    "default_architecture",
    "list_architectures",
]
