"""The network that tells generated from real images while a generator learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fedcl_distill.generators.conditional import stage_sizes


class Discriminator(nn.Module):
    """Strided convolutions with spectral normalisation (Miyato et al. 2018) and a projection of the class.

    The score of an image of a class is linear in its features, plus their inner product with the embedding of the
    class (Miyato and Koyama 2018).
    """

    def __init__(self, sample_shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        channels = sample_shape[0]
        layers: list[nn.Module] = []
        for stage in range(len(stage_sizes(*sample_shape[1:]))):
            out = width * min(2**stage, 2)
            layers.append(spectral_norm(nn.Conv2d(channels, out, 3, stride=2, padding=1)))
            channels = out
        self.layers = nn.ModuleList(layers)
        self.score = spectral_norm(nn.Linear(channels, 1))
        self.classes = spectral_norm(nn.Embedding(classes, channels))

    def features(self, images: Tensor) -> Tensor:
        """float32 (n, features): mean of the last activations over the image."""
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
        return images.mean(dim=(2, 3)) * images.shape[2] * images.shape[3]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n,): large for images that look real for their class, int64 (n,) ``labels``."""
        features = self.features(images)
        projected: Tensor = (self.classes(labels) * features).sum(dim=1)
        score: Tensor = self.score(features)[:, 0]
        return score + projected


def hinge(real: Tensor, generated: Tensor) -> Tensor:
    """Loss of the discriminator for its scores (Lim and Ye 2017); that of the generator is −mean(generated)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + generated).mean()
