"""Networks for any sample shape."""

from fedcl_distill.networks.architectures import (
    DEFAULT_NETWORK_LIMITS,
    Architecture,
    NetworkLimits,
    architectures_in,
    default_architecture,
    list_architectures,
)
from fedcl_distill.networks.base import Network

__all__ = [
    "DEFAULT_NETWORK_LIMITS",
    "Architecture",
    "Network",
    "NetworkLimits",
    "architectures_in",
    "default_architecture",
    "list_architectures",
]
