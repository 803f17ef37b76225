"""Vectors in few bytes: the codecs of compressed updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.synthetic.quantise import pack, packed_bytes, padding_is_zero, unpack

Vector = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class UpdateCodec(Protocol):
    """Codes vectors of a length that both sides know; the length fixes the number of bytes.

    Attributes:
        error_feedback: whether a sender shall add to its next vector what this one lost.
    """

    @property
    def error_feedback(self) -> bool: ...

    def size(self, count: int) -> int:
        """Bytes that ``count`` values take."""
        ...

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        """uint8 (size,) for ``values``, float32 (count,) and finite; ``generator`` is for rounding at random."""
        ...

    def decode(self, payload: Bytes, count: int) -> Vector:
        """float32 (count,): what ``payload`` stands for.

        Raises:
            PayloadError: it is of another size, or not what :meth:`encode` writes.
        """
        ...


CODECS: Registry[UpdateCodec] = Registry("codec", "fedcl_distill.codecs")


@CODECS.register("plain")
@dataclass(frozen=True)
class Plain:
    """32 bits a value: nothing is lost."""

    error_feedback = False

    def size(self, count: int) -> int:
        return 4 * count

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        return values.astype("<f4").view(np.uint8)

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        return read_floats(payload, "<f4")


def check_size(payload: Bytes, expected: int) -> None:
    """Raise PayloadError unless ``payload`` has ``expected`` bytes."""
    if payload.size != expected:
        raise PayloadError(f"update of {payload.size} bytes, expected {expected}")


def read_floats(payload: Bytes, dtype: str) -> Vector:
    """float32 values stored as ``dtype``; PayloadError where one is NaN or infinite."""
    values = np.frombuffer(payload.tobytes(), dtype).astype(np.float32)
    if not np.isfinite(values).all():
        raise PayloadError("update holds NaN or infinity")
    return values


def require(condition: bool, otherwise: str) -> None:
    """Raise SettingsError unless ``condition`` holds."""
    if not condition:
        raise SettingsError(otherwise)


Positions = npt.NDArray[np.int64]


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


@CODECS.register("quantised")
@settings
class Quantised:
    """2**bits − 1 levels, even from −scale to scale, with 0 among them; rounded to a neighbour without bias.

    Attributes:
        bits: of each value: 2, 4 or 8.
        bucket: values that share a scale, which takes 4 bytes.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    bits: Literal[2, 4, 8] = 8
    bucket: Count = 512
    error_feedback = False

    @property
    def steps(self) -> int:
        """Levels above 0."""
        return int(2 ** (self.bits - 1)) - 1

    def size(self, count: int) -> int:
        return 4 * self._buckets(count) + packed_bytes(count, self.bits)

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        buckets = self._in_buckets(values.astype(np.float64))
        scales = np.abs(buckets).max(axis=1)
        exact = buckets / np.where(scales == 0, 1, scales)[:, None] * self.steps
        below = np.floor(exact)
        levels = below + (generator.random(exact.shape) < exact - below)
        codes = (levels + self.steps).astype(np.uint8).reshape(-1)[: len(values)]
        return np.concatenate([scales.astype("<f4").view(np.uint8), pack(codes, self.bits)])

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        start, packed = np.split(payload, [4 * self._buckets(count)])
        scales, codes = read_floats(start, "<f4"), unpack(packed, self.bits, count)
        if (scales < 0).any():
            raise PayloadError("update has a negative scale")
        if (count and int(codes.max()) > 2 * self.steps) or not padding_is_zero(packed, self.bits, count):
            raise PayloadError(f"update has a code above {2 * self.steps}, or bits where padding was expected")
        levels = self._in_buckets(codes.astype(np.float64) - self.steps)
        values = levels * (scales.astype(np.float64) / self.steps)[:, None]
        return values.reshape(-1)[:count].astype(np.float32)

    def _buckets(self, count: int) -> int:
        return -(-count // self.bucket)

    def _in_buckets(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(buckets, bucket), the last one filled up with zeros."""
        rows = self._buckets(len(values))
        padded = np.zeros(rows * self.bucket)
        padded[: len(values)] = values
        return padded.reshape(rows, self.bucket)


_TYPES = {16: "<f2", 32: "<f4"}
_MAX_HALF = 65504.0


@CODECS.register("topk")
@settings
class TopK:
    """Keeps the values of largest magnitude, of all layers together, and takes the others for 0.

    Attributes:
        fraction: of the values, in (0, 1]; at least one is kept.
        value_bits: of each kept value, 16 or 32.
        error_feedback: whether a sender adds what was lost, rounding included, to its next update (Karimireddy et al.
            2019).

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    fraction: Annotated[float, Range(gt=0, le=1)] = 0.01
    value_bits: Literal[16, 32] = 16
    error_feedback: bool = True

    def kept(self, count: int) -> int:
        """How many of ``count`` values are sent."""
        return max(1, round(self.fraction * count))

    def size(self, count: int) -> int:
        kept = self.kept(count)
        return kept * self.value_bits // 8 + positions_bytes(kept, count)

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        kept = self.kept(len(values))
        largest = np.sort(np.argpartition(-np.abs(values), kept - 1)[:kept])
        chosen = values[largest]
        if self.value_bits == 16:
            chosen = chosen.clip(-_MAX_HALF, _MAX_HALF)
        return np.concatenate(
            [chosen.astype(_TYPES[self.value_bits]).view(np.uint8), encode_positions(largest, len(values))]
        )

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        kept = self.kept(count)
        chosen, places = np.split(payload, [kept * self.value_bits // 8])
        values = np.zeros(count, np.float32)
        values[decode_positions(places, kept, count)] = read_floats(chosen, _TYPES[self.value_bits])
        return values


def read_codec(text: str) -> UpdateCodec:
    """The codec that ``text`` names: "plain", "topk:fraction=0.01" or "quantised:bits=4".

    Raises:
        SettingsError: the name or a setting is unknown, or a value is out of range.
    """
    return CODECS.build(text)


__all__ = ["Plain", "Quantised", "TopK", "UpdateCodec", "Vector", "read_codec"]
