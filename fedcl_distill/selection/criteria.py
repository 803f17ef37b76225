"""The core-set criteria that the field compares with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.selection.embeddings import Embedding, Inputs


@dataclass(frozen=True)
class Random:
    """Uniformly random samples."""

    name: ClassVar[str] = "random"

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return torch.empty(len(real), 0)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(embeddings), generator=generator)[:count]


@dataclass(frozen=True)
class Herding:
    """Greedily keeps the mean of the chosen close to the mean of all (Welling 2009; Rebuffi et al. 2017)."""

    name: ClassVar[str] = "herding"
    embedding: Embedding = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        mean = embeddings.mean(dim=0)
        squares = embeddings.square().sum(dim=1)
        total = torch.zeros_like(mean)
        chosen: list[int] = []
        for step in range(1, count + 1):
            wanted = step * mean - total  # the next sample should equal this
            distance = squares - 2 * (embeddings @ wanted)
            distance[chosen] = float("inf")
            chosen.append(int(distance.argmin()))
            total += embeddings[chosen[-1]]
        return torch.tensor(chosen)


@dataclass(frozen=True)
class ClosestToMean:
    """The samples nearest to the mean of their class, each by itself (as some continual-learning memories do).

    Unlike herding it does not look at what was chosen already, so that several samples may be much alike.
    """

    name: ClassVar[str] = "closest-to-mean"
    embedding: Embedding = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        distances = (embeddings - embeddings.mean(dim=0)).square().sum(dim=1)
        return distances.argsort(stable=True)[:count]


@dataclass(frozen=True)
class KCenter:
    """Greedily covers the class: each sample is the farthest from those chosen (Sener and Savarese 2018).

    Starts from the sample closest to the mean, so that the result does not hang on a random first pick.
    """

    name: ClassVar[str] = "k-center"
    embedding: Embedding = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        chosen = [int((embeddings - embeddings.mean(dim=0)).square().sum(dim=1).argmin())]
        distance = torch.full((len(embeddings),), float("inf"))
        while len(chosen) < count:
            distance = torch.minimum(distance, (embeddings - embeddings[chosen[-1]]).square().sum(dim=1))
            distance[chosen] = -1.0
            chosen.append(int(distance.argmax()))
        return torch.tensor(chosen)
