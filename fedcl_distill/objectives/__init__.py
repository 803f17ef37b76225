"""Objectives: what must agree between real and synthetic data."""

from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.characteristic import CharacteristicFunction
from fedcl_distill.objectives.coordinates import AllCoordinates, Coordinates, PrunedCoordinates
from fedcl_distill.objectives.distances import AbsoluteDistance, CosineDistance, Distance, SquaredDistance
from fedcl_distill.objectives.distribution import ClassMeans, DistributionMatching, class_means
from fedcl_distill.objectives.gradients import GradientMatching
from fedcl_distill.objectives.inner_batches import FixedBatches, InnerBatches, RandomBatches
from fedcl_distill.objectives.inner_rates import FixedRate, InnerRates, LearnedRate, LearnedRates
from fedcl_distill.objectives.kernel_ridge import KernelRidgeRegression
from fedcl_distill.objectives.kernels import FullyConnectedNTK, Kernel, NetworkFeatures
from fedcl_distill.objectives.layer_means import LayerMeans
from fedcl_distill.objectives.layers import AllWeights, HiddenWeights, Layers
from fedcl_distill.objectives.regression_losses import (
    PlattScaling,
    RegressionLoss,
    SquaredError,
    SquaredErrorWithMargin,
)
from fedcl_distill.objectives.trajectories import TrajectoryMatching
from fedcl_distill.objectives.trajectory_gradients import Replayed, Tesla, TrajectoryGradient, Unrolled
from fedcl_distill.objectives.truncation import LastSteps, NoTruncation, RandomTruncation, Truncation
from fedcl_distill.objectives.unrolled import UnrolledTraining
from fedcl_distill.objectives.with_cross_entropy import WithCrossEntropy

__all__ = [
    "AbsoluteDistance",
    "AllCoordinates",
    "AllWeights",
    "CharacteristicFunction",
    "ClassMeans",
    "Coordinates",
    "CosineDistance",
    "Distance",
    "DistributionMatching",
    "FixedBatches",
    "FixedRate",
    "FullyConnectedNTK",
    "GradientMatching",
    "HiddenWeights",
    "InnerBatches",
    "InnerRates",
    "Kernel",
    "KernelRidgeRegression",
    "LastSteps",
    "LayerMeans",
    "Layers",
    "Learned",
    "LearnedRate",
    "LearnedRates",
    "NetworkFeatures",
    "NoTruncation",
    "Objective",
    "PlattScaling",
    "PrunedCoordinates",
    "RandomBatches",
    "RandomTruncation",
    "RegressionLoss",
    "Replayed",
    "SquaredDistance",
    "SquaredError",
    "SquaredErrorWithMargin",
    "Tesla",
    "TrajectoryGradient",
    "TrajectoryMatching",
    "Truncation",
    "Unrolled",
    "UnrolledTraining",
    "View",
    "WithCrossEntropy",
    "class_means",
]
