"""Writing files so that a crash leaves either the old content or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcl_distill.errors import StorageError


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file in the same folder, synced before it is renamed.

    Raises:
        StorageError: the folder cannot be written or the disk is full; an older file at ``path`` is untouched.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"could not write {target}: {error.strerror or error}") from error
    return target


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append one line to ``path`` in a single synced write; a torn last line of an earlier crash is closed off first.

    Parallel runs may share the file: it is locked meanwhile, for a write under way can look like a torn line.

    Raises:
        StorageError: the file cannot be written or the disk is full.
        ValueError: ``line`` contains a line break.
    """
    if "\n" in line:
        raise ValueError("append_line takes one line, without a line break")
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(descriptor)
            data = (("\n" if _lacks_final_break(descriptor) else "") + line + "\n").encode()
            written = os.write(descriptor, data)
            if written != len(data):
                raise OSError("the disk took only a part of the line")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"could not append to {target}: {error.strerror or error}") from error


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside the block nobody else is inside one of the same ``path``, in any process; waits until that is so.

    The file at ``path`` is made for the lock alone, and stays. Where the system has no such locks, nothing is held.

    Raises:
        StorageError: the file cannot be made.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(f"could not lock {path}: {error.strerror or error}") from error
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Wait until no other process has it; closing the file lets the next one in. Nothing where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _lacks_final_break(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
