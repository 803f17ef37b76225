"""Writing files so that a crash leaves either the old content or the new one, never half of it.

A file is written under another name beside its place, synced, and renamed into it; then the folder is synced too, for
a rename is only as lasting as the folder that records it. The other name follows from the file's: what a killed
process leaves there is overwritten by the next write, so that nothing piles up.

Systems without ``fcntl`` (Windows) rename closed files alone and have no locks of this kind: there every write has a
name of its own, and is renamed once it is closed. Several processes must not append to one file there.
"""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedcl_distill.errors import StorageError

_BYTES = getattr(os, "O_BINARY", 0)  # or Windows turns every line break into two bytes
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # what stands at the other name is ours, or nothing


def write_atomically(path: str | os.PathLike[str], content: bytes, *, secret: bool = False) -> Path:
    """Write ``content`` to ``path``; of several processes that write it at once, the last one wins.

    A ``secret`` file is readable by its owner alone, from its first byte on.

    Raises:
        StorageError: the folder cannot be written or the disk is full; an older file at ``path`` is untouched.
    """
    target = place(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if secret else 0o666
        if not _has_locks():
            _write_and_rename(target, content, mode)
            return target
        with _locked_part(_part(target), mode) as descriptor:
            _write_all(descriptor, content)
            os.fsync(descriptor)
            os.replace(_part(target), target)
        _sync_folder(target.parent)
    except OSError as error:
        raise StorageError(f"could not write {target}: {error.strerror or error}") from error
    return target


def remove(path: str | os.PathLike[str]) -> None:
    """Remove the file at ``path``, if there is one, and what a killed :func:`write_atomically` left beside it.

    Raises:
        StorageError: it cannot be removed.
    """
    target = place(path)
    try:
        target.unlink(missing_ok=True)
        _part(target).unlink(missing_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"could not remove {target}: {error.strerror or error}") from error


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append one line to ``path`` in a single synced write; a torn last line of an earlier crash is closed off first.

    Parallel runs may share the file: it is locked meanwhile, for a write under way can look like a torn line.

    Raises:
        StorageError: the file cannot be written or the disk is full.
        ValueError: ``line`` contains a line break.
    """
    if "\n" in line:
        raise ValueError("append_line takes one line, without a line break")
    target = place(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BYTES, 0o666)
        try:
            _lock(descriptor)
            is_new = os.fstat(descriptor).st_size == 0
            _write_all(descriptor, (("\n" if _lacks_final_break(descriptor) else "") + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(target.parent)
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
        place(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place(path), os.O_RDWR | os.O_CREAT | _BYTES, 0o666)
    except OSError as error:
        raise StorageError(f"could not lock {path}: {error.strerror or error}") from error
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def place(path: str | os.PathLike[str]) -> Path:
    """``path`` with "~" as the home of whoever runs this."""
    return Path(path).expanduser()


def _write_and_rename(target: Path, content: bytes, mode: int) -> None:
    """Write under a name that nobody else has, close, and rename."""
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BYTES, mode)
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _replace(part, target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _replace(part: Path, target: Path) -> None:
    """Rename, once whoever reads ``target`` has closed it: for two seconds, Windows refuses until then."""
    for _ in range(40):
        with suppress(PermissionError):
            return os.replace(part, target)
        time.sleep(0.05)
    os.replace(part, target)


def _part(target: Path) -> Path:
    """Where the next content of ``target`` is written."""
    return target.with_name(f".{target.name}.part")


@contextmanager
def _locked_part(part: Path, mode: int) -> Iterator[int]:
    """An empty file at ``part`` that no other process writes to; an error removes it."""
    descriptor = _open_locked(part, mode)
    try:
        os.ftruncate(descriptor, 0)
        if mode == 0o600:  # an older one may have been left open to all
            os.fchmod(descriptor, mode)
        yield descriptor
    except BaseException:
        with suppress(OSError):  # it is the first error that counts
            part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _open_locked(part: Path, mode: int) -> int:
    """A descriptor of the file at ``part``, locked: whoever had it before us may have renamed it, so look again."""
    while True:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | _NO_LINK | _BYTES, mode)
        try:
            _lock(descriptor)
            if _is_at(descriptor, part):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, content: bytes) -> None:
    """Write ``content``: in one call where the system takes it so, as it does until a disk is full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: Path) -> None:
    """Make renames and new files in ``folder`` last; nothing where folders cannot be opened."""
    with suppress(PermissionError, IsADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _has_locks() -> bool:
    try:
        import fcntl  # noqa: F401
    except ImportError:  # not a POSIX system
        return False
    return True


def _lock(descriptor: int) -> None:
    """Wait until no other process has it; closing the file lets the next one in. Nothing where there are no locks."""
    if _has_locks():
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _lacks_final_break(descriptor: int) -> bool:
    if os.fstat(descriptor).st_size == 0:
        return False
    os.lseek(descriptor, -1, os.SEEK_END)  # what is appended goes to the end all the same
    return os.read(descriptor, 1) != b"\n"
