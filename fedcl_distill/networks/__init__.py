"""Networks for any sample shape."""

from fedcl_distill.networks.architectures import Architecture, default_architecture, list_architectures
from fedcl_distill.networks.base import Network
from fedcl_distill.networks.limits import NetworkLimits, architectures_in

__all__ = [
    "Architecture",
    "Network",
    "NetworkLimits",
    "architectures_in",
    "default_architecture",
    "list_architectures",
]
