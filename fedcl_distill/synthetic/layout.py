"""How a synthetic set is laid out in a payload, for the two sides that must agree: encoding and decoding.

The container is safetensors. Stored arrays keep their names; labels, where they need an array at all, are the
array ``labels``; everything else is one JSON text in the metadata, the header of ``header.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LABELS = "labels"
STORED_DTYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype("<u1"),
    4: np.dtype("<u1"),
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<f4"),
}


def label_bits(bits: int) -> int:
    """Depth of soft labels: fewer would be coarser than the differences they exist to tell."""
    return max(bits, 8)


def label_dtype(classes: int) -> np.dtype[Any]:
    """The smallest unsigned integers, little-endian, that hold every label of so many classes."""
    return np.min_scalar_type(classes - 1).newbyteorder("<")
