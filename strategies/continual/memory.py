"""What every memory of past experiences offers, and what all have in common; nothing here knows of Avalanche."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedcl_distill.data import LabelledData
from fedcl_distill.engine.size import ByteBudget, spread_in_bytes
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.synthetic import SyntheticSet, decode, encode


class Memory(Protocol):
    """What replay draws from. It holds an encoded set, so that what is replayed is what its bytes hold."""

    @property
    def bytes_kept(self) -> int:
        """Size of the memory in bytes: the encoded set, without provenance."""
        ...

    def add(self, data: LabelledData) -> None:
        """Take in one experience, and shrink what is held to make room.

        Raises:
            SettingsError: the byte budget does not hold a single sample.
        """
        ...

    def recall(self) -> SyntheticSet | None:
        """What is remembered; None before the first experience."""
        ...


@dataclass
class EncodedMemory:
    """The common part: a payload, its bound, and how deep values are stored.

    Attributes:
        byte_budget: most bytes to keep.
        bits: of a stored value: 2, 4, 8, 16 or 32. 8 keep uint8 images within half a grey level, and exactly where both
            black and white occur.
    """

    byte_budget: int
    bits: int = 8
    _payload: bytes = field(default=b"", repr=False)

    @property
    def bytes_kept(self) -> int:
        return len(self._payload)

    def recall(self) -> SyntheticSet | None:
        return decode(self._payload) if self._payload else None

    def _keep(self, held: SyntheticSet) -> None:
        self._payload = encode(held, self.bits, provenance=False)

    def _share(self, data: LabelledData, available: Sequence[int]) -> list[int]:
        """How many samples of each class fit, spread evenly over the classes, given how many there are."""
        return spread_in_bytes(ByteBudget(self.byte_budget, self.bits), data, Pixels(), available)
