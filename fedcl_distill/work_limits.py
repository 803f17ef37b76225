"""What one piece of work may take, where somebody else asks for it: numbers, places, seconds, memory."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import parse
from fedcl_distill.settings import Count, Positive, hints_of, settings

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_NO_WORK = frozenset({"bounds", "byte_budget", "memory_bytes", "max_samples"})
"""Fields of requests whose size is no amount of work: bounds, and what is bounded where it is read."""
_REPEAT_SECONDS = 1.0


class WorkLimitError(SettingsError):
    """Work that was asked for took more time or memory than there is for it."""


class _OutOfTime(WorkLimitError):
    """Raised from another thread, which can give a class and no message."""

    def __init__(self) -> None:
        super().__init__("the work took longer than this node allows")


@settings
class WorkLimits:
    """Bounds on what a node does for one request, whatever the server asks.

    Attributes:
        max_number: of each number in a request: steps, networks, samples, settings of a method, at any depth.
        seconds: wall-clock seconds from the request to the answer. Work that takes longer ends with an error; a single
            operation of torch is waited for.
        memory: bytes that the work may take beside what the process holds; None for what the machine, or the control
            group of the process, has left. Held by the operating system, on Linux alone, for work on the CPU.

    Raises:
        SettingsError: on construction, if a bound is not positive.
    """

    max_number: Count = 1_000_000
    seconds: Positive = 86_400.0
    memory: Count | None = None

    def check_numbers(self, request: Any) -> None:
        """Return if no number in the fields of ``request``, a dataclass, is too large, also inside of its texts.

        Raises:
            SettingsError: one is; it is named.
        """
        try:
            for one in fields(request):
                if one.name not in _NO_WORK:
                    self._check(one.name, getattr(request, one.name))
        except RecursionError as error:
            raise SettingsError(f"{type(request).__name__} is nested too deep") from error

    def _check(self, name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self._check(str(key), inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                self._check(name, inner)
        elif isinstance(value, str):
            with suppress(_Unreadable):
                self._check(name, _settings_in(value))
        elif isinstance(value, int | float) and abs(value) > self.max_number and not name.endswith("seed"):
            raise SettingsError(f"{name} must be at most {self.max_number:,} in a request, got {value!r:.30}")

    @contextmanager
    def working(self) -> Iterator[None]:
        """A block that may take so many seconds and so much memory.

        Raises:
            WorkLimitError: it took more.
        """
        with ExitStack() as stack:
            stack.enter_context(_timed(self.seconds))
            if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # which maps more than there is
                stack.enter_context(_room_for(self.memory))
            yield


DEFAULT_WORK_LIMITS = WorkLimits()


def check_no_places(part: object) -> None:
    """Return if no setting of ``part``, a method with parts of its own, is a file or a folder.

    Raises:
        SettingsError: one is. Whoever asks from outside must not say where to read and write.
    """
    for owner, name, value in _fields_in(part):
        if isinstance(value, os.PathLike):
            raise SettingsError(f"{owner}: {name} names a place on this node, which no request may do, got {value!r}")


def _fields_in(part: object) -> Iterator[tuple[str, str, Any]]:
    if is_dataclass(part) and not isinstance(part, type):
        for one in fields(part):
            value = getattr(part, one.name)
            yield type(part).__name__, one.name, Path(value) if _is_place(type(part), one.name, value) else value
            yield from _fields_in(value)
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from _fields_in(inner)
    elif isinstance(part, Mapping):
        yield from _fields_in(list(part.values()))


def _is_place(owner: type, name: str, value: object) -> bool:
    """Whether a text stands where a path may."""
    return isinstance(value, str) and any(
        issubclass(get_origin(one) or one, os.PathLike)
        for one in get_args(hints_of(owner)[name])
        if isinstance(get_origin(one) or one, type)
    )


class _Unreadable(Exception):
    """A text that is no name with settings."""


def _settings_in(text: str) -> Mapping[str, Any]:
    """What a text such as ``"teacher:epochs=5"`` sets."""
    if ":" not in text:
        raise _Unreadable
    try:
        return {key or "value": value for key, value in parse(text).items() if key != "name"}
    except SettingsError as error:  # whoever reads it says so
        raise _Unreadable from error


@contextmanager
def _timed(seconds: float) -> Iterator[None]:
    """A block that a :class:`WorkLimitError` ends once ``seconds`` are over."""
    thread, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        wait = seconds
        while not over.wait(min(wait, threading.TIMEOUT_MAX)):  # again and again: the work may catch errors
            with lock:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_OutOfTime))
            wait = _REPEAT_SECONDS

    watcher = threading.Thread(target=watch, daemon=True, name="work limit")
    watcher.start()
    try:
        yield
    except _OutOfTime as error:
        raise WorkLimitError(f"the work took longer than the {seconds:g} seconds that this node allows") from error
    finally:
        with lock:
            over.set()


_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc")
_LOCK = threading.Lock()
_limits_before: list[tuple[int, int]] = []  # one for each block that runs now


@contextmanager
def _room_for(memory: int | None) -> Iterator[None]:
    """A block in which the process gets ``memory`` more bytes at most.

    The limit belongs to the process. Blocks in several threads share what the first of them was given.
    """
    held = _data_bytes()
    if resource is None or held is None:
        yield
        return
    with _LOCK:
        before = _limits_before[0] if _limits_before else resource.getrlimit(resource.RLIMIT_DATA)
        if not _limits_before:
            most = held + (available_memory() if memory is None else memory)
            soft = min((one for one in (most, *before) if one != resource.RLIM_INFINITY), default=most)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
        _limits_before.append(before)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
            raise WorkLimitError("the work needs more memory than this node has, or allows for it") from error
        raise
    finally:
        with _LOCK:
            _limits_before.pop()
            if not _limits_before:
                resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int | None:
    """Writable private memory of this process; None where that cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def available_memory() -> int:
    """Bytes that this process may still take: of the machine and of its control group; the most there can be at worst.

    Where only the machine's whole memory can be told, that.
    """
    return min(_of_the_machine(), _of_the_control_group())


def _of_the_machine() -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        (available,) = (line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


_CONTROL_GROUPS = {  # of Linux: limit, use, and what of the use is files that are dropped when memory is needed
    "/sys/fs/cgroup": ("memory.max", "memory.current", "inactive_file"),
    "/sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def _of_the_control_group() -> int:
    """What is left of the memory of the container that this process runs in."""
    left = [sys.maxsize]
    for folder, (limit, use, files) in _CONTROL_GROUPS.items():
        with suppress(OSError, ValueError, KeyError):  # there is no such group, or no limit ("max")
            most, used = (int(Path(folder, name).read_text()) for name in (limit, use))
            facts = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            left.append(max(0, most - used + int(facts[files])))
    return min(left)
