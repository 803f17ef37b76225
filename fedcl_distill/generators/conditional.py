"""A convolutional generator as a pure function of its weights, so that they can be stored with what it generates.

A code is multiplied to a few channels of at most 4 pixels along the shorter side, which are then doubled in size and
convolved until they have the size of a sample. The class is a part of the code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunk_size

Shape = tuple[int, ...]

MAX_SIDE = 512
_COARSEST = 4
_SLOPE = 0.2


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of every stage, coarsest first: each is half of the next, rounded up."""
    sizes = [(height, width)]
    while min(sizes[0]) > _COARSEST:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return sizes


def weight_shapes(code: int, width: int, sample_shape: Shape) -> dict[str, Shape]:
    """Shapes of all weights of a generator.

    Args:
        code: length of a code.
        width: channels of the two coarsest stages; the others have half of them.
        sample_shape: (channels, height, width).
    """
    sizes = stage_sizes(*sample_shape[1:])
    channels = [width if stage < 2 else max(1, width // 2) for stage in range(len(sizes))]
    coarsest = channels[0] * math.prod(sizes[0])
    shapes: dict[str, Shape] = {"mean": sample_shape, "dense": (code, coarsest), "dense_bias": (coarsest,)}
    for stage in range(1, len(sizes)):
        shapes[f"conv{stage}"] = (channels[stage], channels[stage - 1], 3, 3)
        shapes[f"conv{stage}_bias"] = (channels[stage],)
    shapes["output"] = (sample_shape[0], channels[-1], 3, 3)
    return shapes


def initial_weights(shapes: Mapping[str, Shape], generator: torch.Generator) -> dict[str, Tensor]:
    """float32 weights that keep the scale of their inputs (He et al. 2015); biases and the mean are 0."""
    weights = {}
    for name, shape in shapes.items():
        fan_in = shape[0] if name == "dense" else math.prod(shape[1:])
        free = name != "mean" and not name.endswith("_bias")
        weights[name] = torch.randn(shape, generator=generator) / math.sqrt(fan_in) if free else torch.zeros(shape)
    return weights


def generate(weights: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    """float32 (n, channels, height, width): what ``codes`` (n, code) stand for; differentiable in both.

    Works on a few codes at a time, so that the memory for activations does not grow with their number (as long as no
    gradient is asked for).
    """
    size = chunk_size(weights["mean"][None])
    if len(codes) <= size:
        return _generate(weights, codes)
    return torch.cat([_generate(weights, part) for part in torch.split(codes, size)])


def _generate(weights: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    mean = weights["mean"]
    sizes = stage_sizes(mean.shape[1], mean.shape[2])
    images = codes @ weights["dense"] + weights["dense_bias"]
    images = _activate(images.view(len(codes), images.shape[1] // math.prod(sizes[0]), *sizes[0]))
    for stage, size in enumerate(sizes[1:], start=1):
        images = F.interpolate(images, size=size, mode="nearest")
        images = _activate(F.conv2d(images, weights[f"conv{stage}"], weights[f"conv{stage}_bias"], padding=1))
    return mean + F.conv2d(images, weights["output"], padding=1)


def _activate(images: Tensor) -> Tensor:
    """Leaky ReLU, then unit mean square over the channels of each pixel (Karras et al. 2018).

    That needs no statistics of a batch: what a code stands for depends on no other code.
    """
    images = F.leaky_relu(images, _SLOPE)
    return images * (images.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
