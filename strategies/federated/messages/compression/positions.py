"""Ascending positions in about 2 + log2(n / k) bits each (Elias 1974, Fano 1971).

The low bits of all positions stand side by side. The high bits ascend slowly: they are written in unary, as a bitmap
in which the i-th one stands at high part + i. Where all positions are taken, nothing needs to be written.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError
from fedcl_distill.synthetic.quantise import pack, packed_bytes, padding_is_zero, unpack

Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def positions_bytes(count: int, length: int) -> int:
    """Bytes that ``count`` of ``length`` positions take."""
    low, bitmap = _bits(count, length)
    return packed_bytes(count, low) + packed_bytes(bitmap, 1)


def encode_positions(positions: Positions, length: int) -> Bytes:
    """uint8 (positions_bytes,) for int64 (count,) ``positions``, strictly ascending in [0, length)."""
    low, bitmap = _bits(len(positions), length)
    ones = np.zeros(bitmap, np.uint8)
    if bitmap:
        ones[(positions >> low) + np.arange(len(positions))] = 1
    lows = (positions & ((1 << low) - 1)).astype(np.uint32)
    return np.concatenate([pack(lows, low), np.packbits(ones)])


def decode_positions(payload: Bytes, count: int, length: int) -> Positions:
    """The inverse of :func:`encode_positions`, for ``positions_bytes(count, length)`` bytes.

    Raises:
        PayloadError: positions are out of range, repeated, or not ``count``.
    """
    if count == length:
        return np.arange(length)
    low, bitmap = _bits(count, length)
    packed, ones = np.split(payload, [packed_bytes(count, low)])
    places = np.flatnonzero(np.unpackbits(ones, count=bitmap))
    if len(places) != count:
        raise PayloadError(f"update has {len(places)} positions, expected {count}")
    positions = (places - np.arange(count)) << low | unpack(packed, low, count).astype(np.int64)
    if positions[-1] >= length or (np.diff(positions) <= 0).any():
        raise PayloadError(f"positions of an update must ascend below {length}")
    if not padding_is_zero(packed, low, count) or not padding_is_zero(ones, 1, bitmap):
        raise PayloadError("update has bits where padding was expected")
    return positions


def _bits(count: int, length: int) -> tuple[int, int]:
    """Low bits of each position, and the bitmap's length."""
    if count == length:
        return 0, 0
    low = (length // count).bit_length() - 1
    return low, count + ((length - 1) >> low)
