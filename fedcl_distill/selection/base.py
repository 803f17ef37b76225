"""Core sets: real samples chosen to stand for their class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import derive_seed, generator_for


class Criterion(Protocol):
    """Chooses samples of one class."""

    @property
    def name(self) -> str: ...

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d): every sample as the criterion sees it, all classes at once."""
        ...

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """int64 (count,): distinct positions in ``embeddings`` (m, d) of one class, m ≥ count ≥ 1, best first."""
        ...


def select(real: LabelledData, counts: Sequence[int], criterion: Criterion, *, seed: int) -> Tensor:
    """int64 (sum of counts,): positions of the chosen samples in ``real``, in order of class."""
    embeddings = criterion.embed(real, derive_seed(seed, "embed"))
    chosen = []
    for label, count in enumerate(counts):
        if count:
            rows = real.indices_of(label)
            chosen.append(rows[criterion.choose(embeddings[rows], count, generator_for(seed, "choose", label))])
    return torch.cat(chosen)
