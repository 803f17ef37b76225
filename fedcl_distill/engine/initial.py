"""What synthetic samples are before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import Criterion, select


class Initial(Protocol):
    """Gives the first synthetic samples."""

    def samples(self, real: LabelledData, counts: list[int], *, seed: int) -> Tensor:
        """float32 (sum of counts, …) network inputs, in order of class."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FromReal:
    """Real samples, chosen by a core-set criterion (random in most papers)."""

    criterion: Criterion

    def samples(self, real: LabelledData, counts: list[int], *, seed: int) -> Tensor:
        return real.inputs(select(real, counts, self.criterion, seed=seed))

    def settings(self) -> dict[str, Any]:
        return {"initial": f"real ({self.criterion.name})"}


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of the normalised data's mean and deviation: no real sample is the start of a synthetic one."""

    def samples(self, real: LabelledData, counts: list[int], *, seed: int) -> Tensor:
        return torch.randn(sum(counts), *real.sample_shape, generator=generator_for(seed, "noise"))

    def settings(self) -> dict[str, Any]:
        return {"initial": "noise"}
