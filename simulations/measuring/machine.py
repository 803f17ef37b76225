"""The machine at hand: what helps long runs on it, and how fast it multiplies."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time

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
