"""What synthetic samples are before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import Criterion, select


class Initial(Protocol):
    """Gives the first synthetic samples."""

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        """float32 (sum of counts, …) network inputs, in order of class; counts may exceed what a class has."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FromReal:
    """Real samples, chosen by a core-set criterion (random in most papers); repeated where a class has too few."""

    criterion: Criterion

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        distinct = [min(count, have) for count, have in zip(counts, real.class_counts.tolist(), strict=True)]
        chosen = torch.split(select(real, distinct, self.criterion, seed=seed), distinct)
        repeated = [rows[torch.arange(count) % len(rows)] for rows, count in zip(chosen, counts, strict=True) if count]
        return real.inputs(torch.cat(repeated))

    def settings(self) -> dict[str, Any]:
        return {"initial": f"real ({self.criterion.name})"}


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of the normalised data's mean and deviation: no real sample is the start of a synthetic one."""

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        return torch.randn(sum(counts), *real.sample_shape, generator=generator_for(seed, "noise"))

    def settings(self) -> dict[str, Any]:
        return {"initial": "noise"}
