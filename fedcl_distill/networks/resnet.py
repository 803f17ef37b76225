"""ResNet-18 (He et al. 2016) for small images, with instance norm as the field uses it (Zhao et al. 2021)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.networks.base import Network
from fedcl_distill.networks.norms import InstanceNorm


def resnet18(sample_shape: tuple[int, ...], num_classes: int, *, width: int = 64) -> Network:
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
