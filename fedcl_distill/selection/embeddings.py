"""The spaces in which core-set criteria measure distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunked
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.recipes import recipe_for_real
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import Recipe, fit

_WIDTH = 64
_PART = 1024  # samples that are float32 at a time


class Embedding(Protocol):
    """Maps every sample of a data set to a vector."""

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d)."""
        ...


@dataclass(frozen=True)
class Inputs:
    """The normalised samples themselves, flattened: no network, no training."""

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return real.inputs().flatten(1)


@dataclass(frozen=True)
class Thumbnails:
    """Images averaged down to a few pixels, flattened; samples that are no images as they are.

    Distances between thumbnails nearly rank like those between images, and cost a tenth of the time and memory.

    Attributes:
        side: pixels of height and of width at most.

    Raises:
        SettingsError: on construction, if ``side`` is below 1.
    """

    side: int = 8

    def __post_init__(self) -> None:
        if self.side < 1:
            raise SettingsError(f"thumbnails need a side of at least 1, got {self.side}")

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        parts = (slice(start, start + _PART) for start in range(0, len(real), _PART))
        return torch.cat([self._shrink(real.inputs(part)).flatten(1) for part in parts])

    def _shrink(self, inputs: Tensor) -> Tensor:
        if inputs.dim() != 4:
            return inputs
        height, width = (min(side, self.side) for side in inputs.shape[2:])
        return F.adaptive_avg_pool2d(inputs, (height, width))


@dataclass(frozen=True)
class TrainedEmbedding:
    """The penultimate layer of a network trained on the data itself, as the papers' herding uses.

    Attributes:
        architecture: of the network; None takes a ConvNet for images and an MLP for features, of width 64.
        recipe: how it is trained; None takes :func:`~fedcl_distill.recipes.recipe_for_real`.
    """

    architecture: Architecture | None = None
    recipe: Recipe | None = None

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        architecture = self.architecture or default_architecture(real.sample_shape, _WIDTH)
        network = architecture.build(real.sample_shape, real.num_classes, seed=derive_seed(seed, "weights"))
        fit(network, real.inputs(), real.labels, self.recipe or recipe_for_real(real), seed=seed)
        return _embed(network, real)


@torch.no_grad()
def _embed(network: Network, real: LabelledData) -> Tensor:
    network.eval()
    return torch.cat([network.embed(part) for (part,) in chunked(real.inputs())])
