"""Work that is killed in the middle: a copy of this process, and SIGKILL before its n-th call to the file system."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

CALLS = ("open", "write", "ftruncate", "fsync", "replace", "unlink", "close", "mkdir")


def killed_at_every_call(work: Callable[[], object]) -> Iterator[int]:
    """Do ``work`` again and again in a copy of this process, killed before its first call, its second, … until a copy
    comes to its end; after each that was killed, its number is yielded, so that what it left can be looked at."""
    position = 1
    while not _survives(work, position):
        yield position
        position += 1


def _survives(work: Callable[[], object], position: int) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _die_before(position)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, "the work failed by itself"
    return True


def _die_before(position: int) -> None:
    left = position

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **settings: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **settings)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
