"""Everything of a distillation that must survive an interruption, with one save and one load."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.engine.average import Average
from fedcl_distill.errors import CheckpointError
from fedcl_distill.files import write_atomically
from fedcl_distill.network_sources import Supply

_FORMAT = 3
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
        buffer = io.BytesIO()
        content = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "tensors": {name: tensor.detach().cpu() for name, tensor in self._tensors().items()},
            "optimiser": self.optimiser.state_dict(),
            "supply": self.supply.state(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "average": self.average.state(),
        }
        torch.save(content, buffer)
        write_atomically(path, buffer.getvalue())

    def load(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Continue from the checkpoint at ``path``.

        Raises:
            CheckpointError: the file is damaged, or belongs to a run with another seed, setting or data set.
        """
        content = _read(path)
        if content.get("fingerprint") != fingerprint:
            raise CheckpointError(
                f"checkpoint {path} belongs to another run (other data, size, seed or settings); remove it to restart"
            )
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(content["tensors"][name])
        self.optimiser.load_state_dict(content["optimiser"])
        self.supply.restore(content["supply"])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], content["losses"]
        self.average.restore(content["average"], self.labels.device)

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


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(Path(path).read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"checkpoint {path} is not of format {_FORMAT}")
    return content
