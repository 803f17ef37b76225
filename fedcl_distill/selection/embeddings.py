"""The spaces in which core-set criteria measure distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.recipes import recipe_for_real
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import Recipe, fit

_WIDTH = 64


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
