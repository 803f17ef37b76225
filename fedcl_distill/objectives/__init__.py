"""Objectives: what must agree between real and synthetic data."""

from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.distribution.characteristic import CharacteristicFunction
from fedcl_distill.objectives.distribution.class_means import ClassMeans, DistributionMatching, class_means
from fedcl_distill.objectives.distribution.layer_means import LayerMeans
from fedcl_distill.objectives.gradients.distances import AbsoluteDistance, CosineDistance, Distance, SquaredDistance
from fedcl_distill.objectives.gradients.layers import AllWeights, HiddenWeights, Layers
from fedcl_distill.objectives.gradients.matching import GradientMatching
from fedcl_distill.objectives.kernel_ridge.kernels import FullyConnectedNTK, Kernel, NetworkFeatures
from fedcl_distill.objectives.kernel_ridge.losses import (
    PlattScaling,
    RegressionLoss,
    SquaredError,
    SquaredErrorWithMargin,
)
from fedcl_distill.objectives.kernel_ridge.regression import KernelRidgeRegression
from fedcl_distill.objectives.trajectories.coordinates import AllCoordinates, Coordinates, PrunedCoordinates
from fedcl_distill.objectives.trajectories.matching import TrajectoryMatching
from fedcl_distill.objectives.trajectories.through_training import Replayed, Tesla, TrajectoryGradient, Unrolled
from fedcl_distill.objectives.unrolled.batches import FixedBatches, InnerBatches, RandomBatches
from fedcl_distill.objectives.unrolled.rates import FixedRate, InnerRates, LearnedRate, LearnedRates
from fedcl_distill.objectives.unrolled.training import UnrolledTraining
from fedcl_distill.objectives.unrolled.truncation import LastSteps, NoTruncation, RandomTruncation, Truncation
from fedcl_distill.objectives.with_cross_entropy import WithCrossEntropy
from fedcl_distill.objectives.with_pairs import WithPairs

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
    "WithPairs",
    "class_means",
]
