"""Synthetic sets in files; a file holds exactly what would go over the wire."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fedcl_distill.errors import PayloadError, StorageError
from fedcl_distill.files import write_atomically
from fedcl_distill.synthetic.decoding import decode
from fedcl_distill.synthetic.encoding import encode
from fedcl_distill.synthetic.limits import DEFAULT_LIMITS, Limits
from fedcl_distill.synthetic.set import SyntheticSet


def save(synthetic: SyntheticSet, path: str | os.PathLike[str], bits: int = 32) -> int:
    """Write ``synthetic`` to ``path`` (usually ``*.safetensors``) and return the file's size in bytes.

    A crash leaves the older file or the new one, never a part.

    Raises:
        StorageError: the file could not be written.
        SettingsError, PayloadError, DataError: as for :func:`~fedcl_distill.synthetic.encode`.
    """
    payload = encode(synthetic, bits)
    write_atomically(path, payload)
    return len(payload)


def load(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SyntheticSet:
    """Read a set that :func:`save` wrote; safe on files from anyone, as ``decode`` is on bytes.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        PayloadError: its content is not a synthetic set within ``limits``; a file too large is never read.
    """
    content = read_bounded(Path(path), limits.max_payload_bytes)
    try:
        return decode(content, limits)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The file's content; PayloadError if it is larger, or no file, and StorageError if it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PayloadError(f"{path} is not a file")
        if status.st_size > max_bytes:
            raise PayloadError(f"{path} has {status.st_size} bytes, at most {max_bytes} are allowed")
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)  # one more than allowed: a file that grew meanwhile is noticed
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}") from error
