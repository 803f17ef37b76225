"""Networks for any sample shape."""

from fedcl_distill.networks.architectures import Architecture, default_architecture, list_architectures
from fedcl_distill.networks.base import Network

__all__ = ["Architecture", "Network", "default_architecture", "list_architectures"]
