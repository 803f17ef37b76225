"""The mean of what a run has passed through: it varies less than where the run happens to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Average:
    """Mean of tensors by name, over iterates (Polyak and Juditsky 1992).

    Attributes:
        count: iterates so far.
        means: their mean; empty before the first.
    """

    count: int = 0
    means: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Count ``tensors``, of the same names and shapes every time, in."""
        if not self.count:
            self.means = {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in tensors.items()}
        self.count += 1
        for name, mean in self.means.items():
            mean.add_((tensors[name] - mean) / self.count)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"count": self.count, "means": {name: mean.cpu() for name, mean in self.means.items()}}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`state` returned."""
        self.count = int(state["count"])
        self.means = {name: mean.to(device) for name, mean in state["means"].items()}
