"""Objectives: what must agree between real and synthetic data."""

from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.distribution import ClassMeans, DistributionMatching, class_means

__all__ = ["ClassMeans", "DistributionMatching", "Learned", "Objective", "View", "class_means"]
