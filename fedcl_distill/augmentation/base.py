"""What is done alike to the real and the synthetic side: the fourth of the engine's four parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Draw(Protocol):
    """One random draw of an augmentation's parameters, applicable any number of times."""

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Augment ``inputs`` (n, …), differentiably; sample i uses the parameters drawn for ``groups[i]``."""
        ...


class Augmentation(Protocol):
    """Draws parameters; the draw is then a pure function, so two sides can share it."""

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        """Draw parameters for ``groups`` groups of samples (classes when matching, single samples when training).

        Raises:
            SettingsError: samples of this shape cannot be augmented so.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """Leaves samples as they are."""

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _unchanged

    def settings(self) -> dict[str, Any]:
        return {"augmentation": "none"}


def _unchanged(inputs: Tensor, groups: Tensor) -> Tensor:
    return inputs
