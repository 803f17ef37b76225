"""The optimiser of the stored arrays, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGD:
    """SGD with momentum.

    Attributes:
        learning_rate: in the space of network inputs.
        momentum: of SGD.
        decay_from: fraction of the budget after which the rate falls to 0 along a half cosine; 1 keeps it constant,
            as the papers do. Falling averages out the noise of single views.
    """

    learning_rate: float = 1.0
    momentum: float = 0.5
    decay_from: float = 1.0

    def build(self, arrays: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(list(arrays), lr=self.learning_rate, momentum=self.momentum)

    def schedule(self, optimiser: torch.optim.Optimizer, progress: float) -> None:
        """Set the rate for the step that starts at ``progress`` in [0, 1] of the budget."""
        rate = self.learning_rate
        if progress > self.decay_from:
            rate *= 0.5 * (1 + math.cos(math.pi * (progress - self.decay_from) / (1 - self.decay_from)))
        for group in optimiser.param_groups:
            group["lr"] = rate

    def settings(self) -> dict[str, Any]:
        return {
            "optimiser": "sgd",
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "decay_from": self.decay_from,
        }
