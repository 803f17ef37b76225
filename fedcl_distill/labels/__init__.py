"""Labels: what the synthetic samples are labelled with."""

from fedcl_distill.labels.base import Labelling, Labels, on_simplex
from fedcl_distill.labels.hard import HardLabels

__all__ = ["HardLabels", "Labelling", "Labels", "on_simplex"]
