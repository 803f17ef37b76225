"""What every memory of past experiences offers, and what all have in common; nothing here knows of Avalanche."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.engine.size import ByteBudget, counts_within_bytes
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.synthetic import SyntheticSet, decode, encode, union


class Memory(Protocol):
    """What replay draws from. It holds encoded sets, so that what is replayed is what its bytes hold."""

    @property
    def bytes_kept(self) -> int:
        """Size of the memory in bytes: all encoded sets, without provenance."""
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

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors, numbers, texts, and lists and dictionaries of these."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another memory's :meth:`state`, made with the same settings."""
        ...


@dataclass
class EncodedMemory:
    """The common part: payloads, their bound, and how deep values are stored.

    Attributes:
        byte_budget: most bytes to keep.
        bits: of a stored value: 2, 4, 8, 16 or 32. 8 keep uint8 images within half a grey level, and exactly where both
            black and white occur.
    """

    byte_budget: int
    bits: int = 8
    _payloads: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def bytes_kept(self) -> int:
        return sum(map(len, self._payloads))

    def recall(self) -> SyntheticSet | None:
        held = self._held()
        if len(held) > 1:
            return union(held, provenance={})
        return held[0] if held else None

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._own()} | {"_payloads": [*map(as_tensor, self._payloads)]}

    def restore(self, state: dict[str, Any]) -> None:
        for name in self._own():
            setattr(self, name, state[name])
        self._payloads = tuple(map(as_bytes, state["_payloads"]))

    def _own(self) -> list[str]:
        """Fields that change while experiences come."""
        return [one.name for one in fields(self) if one.name.startswith("_")]

    def _held(self) -> list[SyntheticSet]:
        return [decode(payload) for payload in self._payloads]

    def _keep(self, *held: SyntheticSet) -> None:
        self._payloads = tuple(encode(one, self.bits, provenance=False) for one in held)

    def _share(self, data: LabelledData, available: Sequence[int]) -> list[int]:
        """How many samples of each class fit, spread evenly over the classes, given how many there are."""
        return counts_within_bytes(ByteBudget(self.byte_budget, self.bits), data, Pixels(), available)


def as_tensor(payload: bytes) -> Tensor:
    """uint8 (bytes,): a payload as checkpoints hold it."""
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.zeros(0, dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> bytes:
    """The inverse of :func:`as_tensor`."""
    return tensor.numpy().tobytes()
