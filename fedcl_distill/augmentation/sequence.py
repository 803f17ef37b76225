"""Several augmentations one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.augmentation.base import Augmentation, Draw


@dataclass(frozen=True)
class InSequence:
    """Applies ``parts`` in order, each with parameters of its own; where DSA picks one operation, this does all.

    IDC's ``color_crop_cutout`` is three DSAs of one operation each (Kim et al. 2022, their code).
    """

    parts: tuple[Augmentation, ...]

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _Applied([part.draw(groups, sample_shape, generator) for part in self.parts])

    def settings(self) -> dict[str, Any]:
        return {"augmentation": [part.settings() for part in self.parts]}


@dataclass(frozen=True)
class _Applied:
    draws: Sequence[Draw]

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        for draw in self.draws:
            inputs = draw(inputs, groups)
        return inputs
