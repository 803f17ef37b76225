"""Networks for any sample shape: those of the field by name, and any module of the user's."""

from fedcl_distill.networks.adapted import AdaptedNetwork, adapted
from fedcl_distill.networks.architectures import (
    DEFAULT_NETWORK_LIMITS,
    Architecture,
    ArchitectureLike,
    NetworkLimits,
    architecture_for,
    architectures_in,
    as_architecture,
    as_network,
    default_architecture,
    list_architectures,
)
from fedcl_distill.networks.base import (
    NETWORKS,
    Learning,
    Network,
    calibrate,
    check_weights_alone,
    keeps_statistics,
    register_network,
)

__all__ = [
    "DEFAULT_NETWORK_LIMITS",
    "NETWORKS",
    "AdaptedNetwork",
    "Architecture",
    "ArchitectureLike",
    "Learning",
    "Network",
    "NetworkLimits",
    "adapted",
    "architecture_for",
    "architectures_in",
    "as_architecture",
    "as_network",
    "calibrate",
    "check_weights_alone",
    "default_architecture",
    "keeps_statistics",
    "list_architectures",
    "register_network",
]
