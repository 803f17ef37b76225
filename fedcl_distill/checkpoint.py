"""Checkpoints of long work: written atomically, refused where they belong to another run."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import CheckpointError
from fedcl_distill.files import place, write_atomically


def fingerprint(real: LabelledData, origin: Any) -> str:
    """SHA-256, in hexadecimal, over ``origin`` (settings, seed: JSON values) and all that the data say.

    That is labels and samples, and what they are read by: normalisation, value range, class names, whether they may be
    mirrored. Other data, or the same on another scale, are another run.
    """
    scale = [list(real.normalisation.mean), list(real.normalisation.std), list(real.value_range)]
    traits = [*scale, list(real.class_names), real.allow_hflip, list(real.samples.shape), str(real.samples.dtype)]
    digest = hashlib.sha256(json.dumps([origin, traits], sort_keys=True).encode())
    for tensor in (real.labels, real.samples):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


MAGIC = b"fedcl_distill checkpoint 3\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


def save_checkpoint(
    path: str | os.PathLike[str], fingerprint: str, state: Mapping[str, Any], *, secret: bool = False
) -> None:
    """Write ``state`` (tensors, numbers, texts, lists, dictionaries) atomically; ``fingerprint`` names the run.

    A ``secret`` one is readable by its owner alone.

    Raises:
        StorageError: the file could not be written; an older one is untouched.
    """
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, "state": dict(state)}, buffer)
    content = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(content).digest() + content, secret=secret)


def load_checkpoint(path: str | os.PathLike[str], fingerprint: str) -> dict[str, Any] | None:
    """The state that was saved at ``path``; None where there is no file.

    Raises:
        CheckpointError: the file is damaged, or belongs to a run with other data, size, seed or settings.
    """
    try:
        content = place(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    found = _parse(path, content)
    if found.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"checkpoint {path} belongs to another run (other data, scale, size, seed or settings); "
            "remove it to restart"
        )
    if not isinstance(found.get("state"), dict):
        raise CheckpointError(f"checkpoint {path} holds no state")
    state: dict[str, Any] = found["state"]
    return state


@contextmanager
def restoring(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong inside, where a state is put to use, becomes a CheckpointError: the state does not fit."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"checkpoint {path} does not fit this run ({reason}); remove it to restart") from error


def _parse(path: str | os.PathLike[str], content: bytes) -> dict[str, Any]:
    start = len(MAGIC) + _DIGEST_BYTES
    if not content.startswith(MAGIC):
        raise CheckpointError(f"{path} is no checkpoint of this version; remove it to restart")
    if hashlib.sha256(content[start:]).digest() != content[len(MAGIC) : start]:
        raise CheckpointError(f"checkpoint {path} is damaged; remove it to restart")
    try:
        found = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"checkpoint {path} holds no state")
    return found
