"""AlexNet (Krizhevsky et al. 2012) for small images, as the field's cross-architecture checks use it."""

from __future__ import annotations

import torch
from torch import nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network

_SMALLEST = 8


def alexnet(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Five convolutions with ReLU, three of them followed by 2×2 max pooling, then a linear classifier.

    Widths and kernels are those of Zhao et al. 2021's code: no normalisation, no stride, no dense hidden layers, and a
    28×28 grey image padded to 32×32.

    Raises:
        SettingsError: the image is smaller than 8×8.
    """
    channels, height, width = sample_shape
    if min(height, width) < _SMALLEST:
        raise SettingsError(f"AlexNet needs images of at least {_SMALLEST}×{_SMALLEST} pixels, got {height}×{width}")
    first = 4 if (channels, height, width) == (1, 28, 28) else 2
    stages = [
        nn.Sequential(nn.Conv2d(channels, 128, 5, padding=first), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(192, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 192, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    ]
    sides = [(side + 2 * (first - 2)) // 2 // 2 // 2 for side in (height, width)]
    network = Network(stages, 192 * sides[0] * sides[1], num_classes)
    network.body.to(memory_format=torch.channels_last)
    return network
