"""Everything of a distillation that must survive an interruption, with one save and one load."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.errors import CheckpointError
from fedcl_distill.files import write_atomically

_FORMAT = 1


@dataclass
class DistillationState:
    """Where a run stands. Random draws need no state: each is named by the seed and its view (see ``seeding``).

    Attributes:
        arrays: the stored arrays being optimised (leaves that require gradients).
        optimiser: optimises ``arrays``.
        step: synthetic steps done.
        seconds: wall-clock seconds spent, over all sittings.
        losses: loss of every step done.
    """

    arrays: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int
    seconds: float
    losses: list[float]

    def save(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Write a checkpoint atomically; ``fingerprint`` names the run it belongs to.

        Raises:
            StorageError: the checkpoint could not be written; an older one is untouched.
        """
        buffer = io.BytesIO()
        content = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "arrays": {name: array.detach().cpu() for name, array in self.arrays.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
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
            for name, array in self.arrays.items():
                array.copy_(content["arrays"][name])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], content["losses"]


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(Path(path).read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"checkpoint {path} is not of format {_FORMAT}")
    return content
