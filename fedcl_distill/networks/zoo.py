"""The networks of the field, for small images and feature vectors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import NETWORKS, Network
from fedcl_distill.networks.layers import Convolution, InstanceNorm, NormReluPool
from fedcl_distill.settings import Count


@NETWORKS.register("convnet", images_only=True)
def convnet(
    sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 128, depth: Count | None = None
) -> Network:
    """Blocks of 3×3 convolution, instance norm, ReLU and 2×2 average pooling, then a linear classifier.

    A 28×28 grey image is padded to 32×32 by the first convolution, as in the authors' code. ``depth`` defaults to 3,
    fewer where that would leave less than 2×2 pixels: on the 8×8 digits, 100 random samples train depth 2 to 95 % and
    depth 3, which sees a single pixel at the end, to 89 % (docs/reproducibility.md).

    Raises:
        SettingsError: ``depth`` halves the image to nothing.
    """
    channels, height, width_px = sample_shape
    padding = 3 if (channels, height, width_px) == (1, 28, 28) else 1
    size = (height + 2 * padding - 2, width_px + 2 * padding - 2)
    most = int(math.log2(min(size))) if min(size) else 0
    depth = max(1, min(3, most - 1)) if depth is None else depth
    if not 1 <= depth <= most:
        raise SettingsError(
            f"a ConvNet of depth {depth} needs images of at least {2 ** max(depth, 1)} pixels a side, "
            f"got {height}×{width_px}"
        )
    stages: list[nn.Module] = []
    for block in range(depth):
        convolution = Convolution(channels, width, 3, padding=padding if block == 0 else 1)
        stages.append(nn.Sequential(convolution, NormReluPool(width)))
        channels, size = width, (size[0] // 2, size[1] // 2)
    return Network(stages, channels * size[0] * size[1], num_classes)


@NETWORKS.register("linear")
def linear(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """A linear classifier of the samples as they are: for features of a backbone. Its embedding is the sample."""
    return Network([nn.Flatten()], math.prod(sample_shape), num_classes)


@NETWORKS.register("mlp")
def mlp(sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 128, depth: Count = 2) -> Network:
    """``depth`` hidden layers of ``width`` units with ReLU; images are flattened."""
    sizes = [math.prod(sample_shape)] + [width] * depth
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU()) for inputs, outputs in pairwise(sizes)]
    return Network(stages, width, num_classes)


@NETWORKS.register("lenet", images_only=True)
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


@NETWORKS.register("resnet18", images_only=True)
def resnet18(sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 64) -> Network:
    """A 3×3 stem without pooling, four stages of two residual blocks, global average pooling.

    Instance norm instead of batch norm: a handful of synthetic samples gives no usable batch statistics.
    """
    channels = sample_shape[0]
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), InstanceNorm(width), nn.ReLU())
    stages = [stem]
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        blocks = [ResidualBlock(inputs, outputs, 1 if stage == 0 else 2), ResidualBlock(outputs, outputs, 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = outputs
    stages[-1].append(nn.AdaptiveAvgPool2d(1))
    return Network(stages, inputs, num_classes)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = InstanceNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = InstanceNorm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), InstanceNorm(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_MIN_SIDE = 2  # at a single pixel, instance norm leaves nothing of the signal


@NETWORKS.register("vgg11", images_only=True)
def vgg11(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Eight 3×3 convolutions with instance norm and ReLU in five groups, 2×2 max pooling, then a linear classifier.

    A 28×28 grey image is padded to 32×32 by the first convolution, as in the authors' code. Images smaller than 32
    pixels are pooled less often, so that every convolution sees at least 2×2 pixels; only the last pooling may leave
    one.

    Raises:
        SettingsError: the image is smaller than 4×4.
    """
    channels, height, width = sample_shape
    if min(height, width) < 2 * _MIN_SIDE:
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
        if min(sides) // 2 >= (1 if last else _MIN_SIDE):
            stages[-1].append(nn.MaxPool2d(2))  # type: ignore[operator]
            sides = [side // 2 for side in sides]
    network = Network(stages, channels * sides[0] * sides[1], num_classes)
    network.body.to(memory_format=torch.channels_last)
    return network


_SMALLEST = 8


@NETWORKS.register("alexnet", images_only=True)
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
