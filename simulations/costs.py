"""What work costs this process, what the machine can do, and how its allocator is tuned."""

from __future__ import annotations

import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fedcl_distill.errors import SettingsError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESTART_PEAK = "5"  # see proc(5): resets the peak of resident memory


@dataclass(frozen=True)
class Cost:
    """Cost of one phase.

    Attributes:
        seconds: of wall-clock time.
        cpu_seconds: of all threads of this process, user and system time together.
        peak_bytes: most resident memory of the whole process meanwhile, interpreter and data included; None where
            the system does not say. It tells something about the phase in a process that did nothing else before,
            for freed memory may stay with the process.
        start_bytes: resident memory when the phase began, so that the difference is the phase's own.
        device_peak_bytes: most memory that PyTorch held on the accelerator; None without one.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    start_bytes: int | None = None
    device_peak_bytes: int | None = None

    @property
    def own_peak_bytes(self) -> int | None:
        """Peak above what the process held when the phase began; None where the system does not say."""
        return None if self.peak_bytes is None else self.peak_bytes - (self.start_bytes or 0)

    def as_record(self, phase: str) -> dict[str, Any]:
        """JSON values, named after the phase: ``distil_cpu_seconds`` and so on."""
        record: dict[str, Any] = {
            f"{phase}_cpu_seconds": round(self.cpu_seconds, 3),
            f"{phase}_peak_bytes": self.peak_bytes,
            f"{phase}_start_bytes": self.start_bytes,
        }
        if self.device_peak_bytes is not None:
            record[f"{phase}_device_peak_bytes"] = self.device_peak_bytes
        return record


class Meter:
    """Measures from its making on; one at a time, since a process has a single peak."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        _restart_peak()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._start_bytes = _status_bytes("VmRSS")
        self._started, self._cpu = time.monotonic(), time.process_time()

    def cost(self) -> Cost:
        """What was spent since the meter was made."""
        on_cuda = self._device.type == "cuda"
        return Cost(
            seconds=time.monotonic() - self._started,
            cpu_seconds=time.process_time() - self._cpu,
            peak_bytes=_peak_bytes(),
            start_bytes=self._start_bytes,
            device_peak_bytes=int(torch.cuda.max_memory_allocated(self._device)) if on_cuda else None,
        )


def _restart_peak() -> None:
    """Let the peak start from now; where that is refused it stays that of the whole process."""
    try:
        _CLEAR.write_text(_RESTART_PEAK)
    except OSError:
        return


def _peak_bytes() -> int | None:
    """Linux says it for this program; getrusage, asked elsewhere, may count what started the program too."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _status_bytes(name: str) -> int | None:
    """A line of this process's status on Linux, given there in kB; None elsewhere."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_MAX_MMAP_THRESHOLD = 1 << 30
_NEVER_TRIM = 2**31 - 1
_MATRIX = 1024
_MATRIX_REPEATS = 15


def tune_allocator() -> bool:
    """Let glibc keep large blocks instead of mapping and unmapping them; True if that took effect.

    By default glibc maps every large activation anew and gives it back a moment later, so that each training step
    pays for page faults on all of its memory. Keeping the blocks halves the time of a step of a ConvNet of width 128
    at batch size 256 on the CPU; the process holds on to its peak memory in return. Elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    trimmed = mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    return bool(mapped and trimmed)


def matrix_rate() -> float:
    """GFLOP per CPU-second of this process's float32 matrix product, of two square matrices of 1,024 a side."""
    import torch

    left, right = torch.randn(2, _MATRIX, _MATRIX, generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(_MATRIX_REPEATS):
        before = time.process_time()
        left @ right
        taken.append(time.process_time() - before)
    return 2 * _MATRIX**3 / statistics.median(taken) / 1e9


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, inside its block, the operations of convolutions and matrix products by PyTorch's own formulas.

    PyTorch's ``FlopCounterMode`` counts them module by module, by hooks that fail where a network whose weights are
    constant is differentiated in its inputs.

    Attributes:
        total: operations so far; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def check_device(device: str) -> None:
    """Return if PyTorch can compute on ``device`` here; "auto" is any.

    Raises:
        SettingsError: it cannot; the message says why.
    """
    if device == "auto":
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"device {device!r} is not there ({reason}); --device cpu always is") from error
