"""The spaces in which core-set criteria measure distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import Recipe, fit


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
        architecture: of the network.
        recipe: how it is trained.
    """

    architecture: Architecture
    recipe: Recipe

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        network = self.architecture.build(real.sample_shape, real.num_classes, seed=derive_seed(seed, "weights"))
        fit(network, real.inputs(), real.labels, self.recipe, seed=seed)
        return _embed(network, real)


@torch.no_grad()
def _embed(network: Network, real: LabelledData) -> Tensor:
    network.eval()
    return torch.cat([network.embed(part) for (part,) in chunked(real.inputs())])
