"""Where a run stands, in a file: written whole or not at all, and refused by any other run."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.errors import CheckpointError
from fedcl_distill.files import write_atomically

_FORMAT = 1


def save_checkpoint(path: str | os.PathLike[str], fingerprint: str, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, texts, lists, dictionaries) atomically; ``fingerprint`` names the run.

    Raises:
        StorageError: the file could not be written; an older one is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "fingerprint": fingerprint, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | os.PathLike[str], fingerprint: str) -> dict[str, Any] | None:
    """The state that was saved at ``path``; None where there is no file.

    Raises:
        CheckpointError: the file is damaged, or belongs to a run with other settings or data.
    """
    if not os.path.exists(path):
        return None
    try:
        content = torch.load(io.BytesIO(Path(path).read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("state"), dict):
        raise CheckpointError(f"checkpoint {path} is not of format {_FORMAT}")
    if content.get("fingerprint") != fingerprint:
        raise CheckpointError(f"checkpoint {path} belongs to a run with other data or settings; remove it to restart")
    state: dict[str, Any] = content["state"]
    return state
