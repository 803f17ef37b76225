"""Whole numbers of a few bits each, packed without gaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.unsignedinteger[Any]]
_CHUNK = 2**16  # codes at once, so that single bits never exist for the whole array; whole bytes at any depth


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack(codes: UInts, bits: int) -> npt.NDArray[np.uint8]:
    """uint8 (ceil(size · bits / 8),): ``codes``, each below 2**bits (0 to 32 bits), most significant bit first.

    The last byte is padded with zeros.
    """
    shifts, flat = _shifts(bits), codes.reshape(-1)
    packed = np.empty(packed_bytes(flat.size, bits), np.uint8)
    for part in _chunks(flat.size):
        single = (flat[part, None].astype(np.uint32) >> shifts & np.uint32(1)).astype(np.uint8)
        packed[_bytes_of(part, bits)] = np.packbits(single)
    return packed


def unpack(packed: npt.NDArray[np.uint8], bits: int, count: int) -> UInts:
    """(count,) uint8, or uint32 above 8 bits: the inverse of :func:`pack`, for as many bytes as that gives."""
    weights = (np.uint32(1) << _shifts(bits)).astype(np.uint32)
    codes: UInts = np.empty(count, np.uint8 if bits <= 8 else np.uint32)
    for part in _chunks(count):
        single = np.unpackbits(packed[_bytes_of(part, bits)], count=(part.stop - part.start) * bits)
        codes[part] = single.reshape(-1, bits) @ weights if bits else 0
    return codes


def padding_is_zero(packed: npt.NDArray[np.uint8], bits: int, count: int) -> bool:
    """Whether the last byte's unused bits are as :func:`pack` leaves them."""
    unused = 8 * packed.size - count * bits
    return not packed.size or not int(packed[-1]) & ((1 << unused) - 1)


def _shifts(bits: int) -> npt.NDArray[np.uint32]:
    return np.arange(bits - 1, -1, -1, dtype=np.uint32)


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, min(start + _CHUNK, count))


def _bytes_of(part: slice, bits: int) -> slice:
    return slice(part.start * bits // 8, packed_bytes(part.stop, bits))
