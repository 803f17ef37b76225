"""Files may claim any size: what does not fit into this machine's memory is refused before it is read."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedcl_distill.errors import DataError


def check_fits(file: Path, shape: Sequence[int], item_bytes: int = 1) -> None:
    """Return if an array of ``shape``, of items of so many bytes, fits into memory; axes of length 0 count as 1.

    Raises:
        DataError: it does not.
    """
    needed = math.prod(max(1, size) for size in shape) * item_bytes
    if needed > _memory():
        raise DataError(
            f"{file}: declares an array of shape {tuple(shape)[:8]}, which is more than this machine's memory"
        )


def _memory() -> int:
    """Bytes of physical memory; where that cannot be told, the most an address can name."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize
