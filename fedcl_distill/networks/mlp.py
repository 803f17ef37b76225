"""A plain multi-layer perceptron, for feature vectors and for cross-architecture checks."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from fedcl_distill.networks.base import Network


def mlp(sample_shape: tuple[int, ...], num_classes: int, *, width: int = 128, depth: int = 2) -> Network:
    """``depth`` hidden layers of ``width`` units with ReLU; images are flattened."""
    sizes = [math.prod(sample_shape)] + [width] * depth
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU()) for inputs, outputs in pairwise(sizes)]
    return Network(stages, width, num_classes)
