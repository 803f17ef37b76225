"""VGG-11 (Simonyan and Zisserman 2015) for small images, with instance norm as the field uses it (Zhao et al. 2021)."""

from __future__ import annotations

import torch
from torch import nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network
from fedcl_distill.networks.norms import InstanceNorm

_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_SMALLEST_SIDE = 2  # at a single pixel, instance norm leaves nothing of the signal


def vgg11(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Eight 3×3 convolutions with instance norm and ReLU in five groups, 2×2 max pooling, then a linear classifier.

    A 28×28 grey image is padded to 32×32 by the first convolution, as in the authors' code. Images smaller than 32
    pixels are pooled less often, so that every convolution sees at least 2×2 pixels; only the last pooling may leave
    one.

    Raises:
        SettingsError: the image is smaller than 4×4.
    """
    channels, height, width = sample_shape
    if min(height, width) < 2 * _SMALLEST_SIDE:
        raise SettingsError(f"VGG-11 needs images of at least 4×4 pixels, got {height}×{width}")
    padding = 3 if (channels, height, width) == (1, 28, 28) else 1
    sides = [side + 2 * (padding - 1) for side in (height, width)]
    stages: list[nn.Module] = []
    for group, widths in enumerate(_WIDTHS):
        for outputs in widths:
            convolution = nn.Conv2d(channels, outputs, 3, padding=padding)
            stages.append(nn.Sequential(convolution, InstanceNorm(outputs), nn.ReLU()))
            channels, padding = outputs, 1
        last = group == len(_WIDTHS) - 1
        if min(sides) // 2 >= (1 if last else _SMALLEST_SIDE):
            stages[-1].append(nn.MaxPool2d(2))  # type: ignore[operator]
            sides = [side // 2 for side in sides]
    network = Network(stages, channels * sides[0] * sides[1], num_classes)
    network.body.to(memory_format=torch.channels_last)
    return network
