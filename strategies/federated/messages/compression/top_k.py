"""The largest values of an update, and where they stand (Stich et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strategies.federated.messages.compression.codec import Bytes, Vector, check_size, read_floats, require
from strategies.federated.messages.compression.positions import decode_positions, encode_positions, positions_bytes

_TYPES = {16: "<f2", 32: "<f4"}
_MAX_HALF = 65504.0


@dataclass(frozen=True)
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

    fraction: float = 0.01
    value_bits: int = 16
    error_feedback: bool = True

    def __post_init__(self) -> None:
        require(0 < self.fraction <= 1, f"fraction must be in (0, 1], got {self.fraction}")
        require(self.value_bits in _TYPES, f"value_bits must be 16 or 32, got {self.value_bits}")

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
