"""Everything of a distillation that must survive an interruption, with one save and one load."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.checkpoint import load_checkpoint, restoring, save_checkpoint
from fedcl_distill.engine.average import Average
from fedcl_distill.network_sources import Supply

_LABELS = "labels"


@dataclass
class DistillationState:
    """Where a run stands. Random draws need no state: each is named by the seed and its view (see ``seeding``).

    Attributes:
        arrays: the stored arrays; those being optimised are leaves that require gradients.
        labels: of the decoded samples; a leaf where they are learned.
        learned: what the objective learns beside them, by name; leaves.
        optimiser: of all leaves.
        supply: hands out the networks, which may learn as well.
        step: synthetic steps done.
        seconds: spent by the budget's clock, over all sittings.
        losses: loss of every step done.
        average: of the stored arrays and the labels, where a method asks for it.
    """

    arrays: dict[str, Tensor]
    labels: Tensor
    learned: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    supply: Supply
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    average: Average = field(default_factory=Average)

    def save(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Write a checkpoint atomically; ``fingerprint`` names the run it belongs to.

        Raises:
            StorageError: the checkpoint could not be written; an older one is untouched.
        """
        content = {
            "tensors": {name: tensor.detach().cpu() for name, tensor in self._tensors().items()},
            "optimiser": self.optimiser.state_dict(),
            "supply": self.supply.state(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "average": self.average.state(),
        }
        save_checkpoint(path, fingerprint, content)

    def load(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Continue from the checkpoint at ``path``, if there is one.

        Raises:
            CheckpointError: the file is damaged, or belongs to a run with another seed, setting or data set.
        """
        content = load_checkpoint(path, fingerprint)
        if content is None:
            return
        with restoring(path):
            self._restore(content)

    def _restore(self, content: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(content["tensors"][name])
        self.optimiser.load_state_dict(content["optimiser"])
        self.supply.restore(content["supply"])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], content["losses"]
        self.average.restore(content["average"], self.labels.device)
        if not all(type(loss) is float for loss in self.losses) or len(self.losses) != self.step:
            raise ValueError(f"it has {len(self.losses)} losses of {self.step} steps")
        if type(self.step) is not int or not 0 <= self.seconds < math.inf:
            raise ValueError(f"it stands at step {self.step} after {self.seconds} s")

    def count_in(self) -> None:
        """Let the average count stored arrays and labels as they are now, those that are learned."""
        self.average.add({name: one for name, one in self._result().items() if one.requires_grad})

    def outcome(self) -> tuple[dict[str, Tensor], Tensor]:
        """Stored arrays and labels that the run has come to: their average where there is one, else the latest."""
        result = {**self._result(), **self.average.means}
        return {name: result[_array(name)] for name in self.arrays}, result[_LABELS]

    def _result(self) -> dict[str, Tensor]:
        return {**{_array(name): array for name, array in self.arrays.items()}, _LABELS: self.labels}

    def _tensors(self) -> dict[str, Tensor]:
        return {**self._result(), **{f"learned {name}": one for name, one in self.learned.items()}}


def _array(name: str) -> str:
    return f"array {name}"
