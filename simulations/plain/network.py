"""ConvNet-3 put together from PyTorch's own layers."""

from __future__ import annotations

from torch import Tensor, nn


class PlainConvNet(nn.Module):
    """Three blocks of convolution, instance norm, ReLU and average pooling, and a linear classifier.

    Args:
        sample_shape: (channels, height, width); 28×28 grey images are padded to 32×32, as in the authors' code.
        num_classes: scores of the classifier.
        width: channels of each block.
    """

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int, width: int = 128) -> None:
        super().__init__()
        channels, height, breadth = sample_shape
        padding = 3 if sample_shape == (1, 28, 28) else 1
        blocks: list[nn.Module] = []
        size = (height + 2 * padding - 2, breadth + 2 * padding - 2)
        for block in range(3):
            blocks += [
                nn.Conv2d(channels, width, kernel_size=3, padding=padding if block == 0 else 1),
                nn.GroupNorm(width, width, affine=True),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(kernel_size=2, stride=2),
            ]
            channels, size = width, (size[0] // 2, size[1] // 2)
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * size[0] * size[1], num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, width · height · breadth after three poolings)."""
        features: Tensor = self.features(inputs).flatten(1)
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.embed(inputs))
        return scores
