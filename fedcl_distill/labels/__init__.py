"""Labels: what the synthetic samples are labelled with."""

from fedcl_distill.labels.base import Labelling, Labels, on_simplex
from fedcl_distill.labels.hard import HardLabels
from fedcl_distill.labels.learned import LearnedLabels
from fedcl_distill.labels.teacher import TeacherLabels

__all__ = ["HardLabels", "Labelling", "Labels", "LearnedLabels", "TeacherLabels", "on_simplex"]
