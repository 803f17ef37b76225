"""What turns a vector into bytes and back, and the one that loses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError, SettingsError

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
