"""Objectives: what must agree between real and synthetic data."""

from fedcl_distill.objectives.base import Objective, RealSide, View
from fedcl_distill.objectives.distribution import ClassMeans, DistributionMatching, class_means

__all__ = ["ClassMeans", "DistributionMatching", "Objective", "RealSide", "View", "class_means"]
