"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, for any image of at least 8×8 pixels."""

from __future__ import annotations

from torch import nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network


def lenet(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Two 5×5 convolutions with pooling, then dense layers of 120 and 84 units.

    Convolutions pad so that an 8×8 image still has pixels left (the original pads only 28×28 images to 32×32).

    Raises:
        SettingsError: the image is smaller than 4×4.
    """
    channels, height, width = sample_shape
    if min(height, width) < 4:
        raise SettingsError(f"LeNet needs images of at least 4×4 pixels, got {height}×{width}")
    flat = 16 * (height // 4) * (width // 4)
    stages = [
        nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(flat, 120), nn.ReLU()),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
    ]
    return Network(stages, 84, num_classes)
