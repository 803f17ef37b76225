"""Small conditional generators of images, trained on the user's own data."""

from __future__ import annotations

from fedcl_distill.generators.conditional import MAX_SIDE, generate, weight_shapes
from fedcl_distill.generators.inversion import invert
from fedcl_distill.generators.train import Training, train

__all__ = ["MAX_SIDE", "Training", "generate", "invert", "train", "weight_shapes"]
