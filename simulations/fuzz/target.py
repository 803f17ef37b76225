"""What is fuzzed, and what counts as a finding."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from simulations.fuzz.mutation import mutate_bytes

Mutator = Callable[[bytes, Random], bytes]

MAX_SECONDS = 2.0
MAX_MEMORY = 256 * 2**20  # bytes by which one input may raise the process's peak


class Finding(Exception):
    """An input that a reader did not take as it promises."""


def _nothing_more(value: Any) -> None:
    """What was accepted needs no further look."""


@dataclass(frozen=True)
class Target:
    """A reader of bytes from anyone.

    Attributes:
        name: on the command line.
        seeds: valid inputs to start from, made by code.
        read: takes an input, or refuses it by raising one of ``refusals``.
        refusals: the only exceptions that may come out of ``read``.
        check: must hold of whatever was accepted; no exception may come out of it.
        mutate: another input from one, in a way that keeps the form which random bytes would lose at once.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes], Any]
    refusals: tuple[type[Exception], ...]
    check: Callable[[Any], None] = _nothing_more
    mutate: Mutator = mutate_bytes


def judge(target: Target, data: bytes) -> bool:
    """Whether ``target`` accepts ``data``.

    Raises:
        Finding: neither accepted nor refused as promised, or at a cost of more than :data:`MAX_SECONDS` of processor
            time or :data:`MAX_MEMORY`; the exception behind it, if any, is its cause.
    """
    started, peak = time.thread_time(), _peak()
    accepted = _is_accepted(target, data)
    seconds, grown = time.thread_time() - started, _peak() - peak
    if seconds > MAX_SECONDS:
        raise Finding(f"{target.name} took {seconds:.1f} s")
    if grown > MAX_MEMORY:
        raise Finding(f"{target.name} took {grown // 2**20} MiB")
    return accepted


def _is_accepted(target: Target, data: bytes) -> bool:
    try:
        found = target.read(data)
    except target.refusals:
        return False
    except Exception as error:
        raise Finding(f"{target.name} raised {type(error).__name__}: {str(error)[:200]}") from error
    try:
        target.check(found)
    except Exception as error:
        raise Finding(f"{target.name} accepted what does not hold: {type(error).__name__}: {error}") from error
    return True


def _peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
