"""Values to codes of few bits and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError, SettingsError

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
UInts = npt.NDArray[np.unsignedinteger[Any]]

Bits = Literal[2, 4, 8, 16, 32]
BITS: tuple[Bits, ...] = get_args(Bits)
"""Depths in which values are stored: codes below 8 bits are packed into bytes, 32 keeps float32 as it is."""

_CHUNK = 2**18  # values looked up at once, so that wide indices never exist for the whole array


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of an array; both are float32 numbers, so that the grid's ends are exact."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise PayloadError(f"a quantisation range must be finite, got [{self.low}, {self.high}]")
        if self.low > self.high:
            raise PayloadError(f"a quantisation range must ascend, got [{self.low}, {self.high}]")

    @classmethod
    def of(cls, values: Floats) -> Range:
        """The range of ``values``; [0, 0] if there are none."""
        if values.size == 0:
            return cls(0.0, 0.0)
        # Adding 0.0 turns -0.0 into 0.0: which of the two min() returns is a matter of order.
        return cls(float(values.min()) + 0.0, float(values.max()) + 0.0)

    def to_text(self) -> str:
        """16 hexadecimal digits. A fixed width keeps the size of a payload independent of its values."""
        return struct.pack("<2f", self.low, self.high).hex()

    @classmethod
    def from_text(cls, text: object) -> Range:
        """The inverse of :meth:`to_text`; raises PayloadError on anything else, NaN and infinity included."""
        try:
            if not isinstance(text, str):
                raise ValueError("not a string")
            return cls(*struct.unpack("<2f", bytes.fromhex(text)))
        except (ValueError, struct.error) as error:
            raise PayloadError(f"bad quantisation range: {error}") from error


def check_bits(bits: int) -> None:
    """Return if ``bits`` is one of :data:`BITS`.

    Raises:
        SettingsError: it is not.
    """
    if type(bits) is not int or bits not in BITS:
        raise SettingsError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits!r}")


def label_bits(bits: int) -> int:
    """Depth of soft labels: fewer would be coarser than the differences they exist to tell."""
    return max(bits, 8)


def even_levels(span: Range, count: int) -> Floats:
    """float32 (count,), ascending and evenly spaced, ``count`` ≥ 1. The ends are exactly ``span``."""
    return np.linspace(span.low, span.high, count, dtype=np.float64).astype(np.float32)


def grid(span: Range, bits: int) -> Floats:
    """float32 (2**bits,), ascending: the values that codes stand for. The ends are exactly ``span``."""
    return even_levels(span, 2**bits)


def nearest(values: Floats, levels: Floats) -> Codes:
    """Codes of the ``levels`` (at most 65,536, ascending) nearest to ``values``, of the same shape: uint8 or uint16."""
    middles = (levels[:-1].astype(np.float64) + levels[1:]) / 2
    # Where float32 is coarser than the grid, neighbours coincide. Taking the first of equals makes codes
    # canonical: quantising what they decode to gives the same codes again.
    first_equal = np.searchsorted(levels, levels)
    codes = first_equal[np.searchsorted(middles, values)]
    return codes.astype(np.uint16) if len(levels) > 256 else codes.astype(np.uint8)


def lookup(codes: UInts, levels: Floats) -> Floats:
    """float32: the levels that ``codes`` (each below their number) stand for, of the same shape."""
    flat = codes.reshape(-1)
    values = np.empty(flat.shape, dtype=np.float32)
    for start in range(0, flat.size, _CHUNK):
        values[start : start + _CHUNK] = levels[flat[start : start + _CHUNK]]
    return values.reshape(codes.shape)


def levels_for(values: Floats, span: Range, most: int) -> Floats:
    """The even levels over ``span``, the range of ``values``, that a payload stores them on.

    They are the fewest, 256 at most, that hold every value exactly; ``most`` if there are no such. Values that were
    rounded to a few even steps stay exact so, however many steps, and what is decoded asks for the same levels again.
    """
    levels = even_levels(span, most)
    exact = _exact_levels(values, span, most)
    if exact is None:
        exact = _exact_levels(lookup(nearest(values, levels), levels), span, most)
    return levels if exact is None else exact


def _exact_levels(values: Floats, span: Range, most: int) -> Floats | None:
    present = np.unique(values)
    for count in range(max(len(present), 1), min(most, 256) + 1):
        levels = even_levels(span, count)
        if np.array_equal(lookup(nearest(present, levels), levels), present):
            return levels
    return None


def quantise(values: Floats, span: Range, bits: int) -> Codes:
    """Codes of the grid values nearest to ``values``, of the same shape: uint8, or uint16 for 16 bits."""
    return nearest(values, grid(span, bits))


def dequantise(codes: Codes, span: Range, bits: int) -> Floats:
    """float32 grid values of ``codes`` (each below 2**bits), of the same shape, all within ``span``."""
    return lookup(codes, grid(span, bits))


def rounded(values: Floats, bits: int) -> Floats:
    """What ``values`` are after a way through the codec: of the same shape; themselves at 32 bits."""
    if bits == 32:
        return values
    span = Range.of(values)
    return dequantise(quantise(values, span, bits), span, bits)


def error_bound(span: Range, bits: int) -> float:
    """Largest distance between a value in ``span`` and what it decodes to; 0 at 32 bits and for one value.

    Half a grid step, ``(high - low) / (2 * (2**bits - 1))``, plus the float32 rounding of the grid.
    """
    if bits == 32 or span.low == span.high:
        return 0.0
    rounding = math.ldexp(max(abs(span.low), abs(span.high)), -23) + math.ldexp(1.0, -149)
    return (span.high - span.low) / (2 * ((1 << bits) - 1)) + rounding


def is_packed(bits: int) -> bool:
    """Whether several codes of this depth share a byte."""
    return bits < 8


_PACKING_CHUNK = 2**16  # codes at once, so that single bits never exist for the whole array; whole bytes at any depth


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
    for start in range(0, count, _PACKING_CHUNK):
        yield slice(start, min(start + _PACKING_CHUNK, count))


def _bytes_of(part: slice, bits: int) -> slice:
    return slice(part.start * bits // 8, packed_bytes(part.stop, bits))
