"""What every memory of past experiences offers, and the plain ones; nothing here knows of Avalanche."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.engine.size import ByteBudget, counts_within_bytes
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet, decode, encode, encoded_bytes, union


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


@dataclass
class ReservoirMemory(EncodedMemory):
    """A uniform random sample of everything seen (Vitter 1985), the baseline of replay.

    Every sample seen draws a random key, and the smallest keys stay: no sample is favoured, whatever the order.
    Keys are bookkeeping and not counted: Vitter's algorithm R would choose as uniformly without them.

    Attributes:
        seed: fixes the keys.
    """

    seed: int = field(default=0, kw_only=True)
    _keys: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), repr=False)
    _experiences: int = field(default=0, repr=False)

    def add(self, data: LabelledData) -> None:
        generator = generator_for(self.seed, "reservoir", self._experiences)
        keys = torch.rand(len(data), generator=generator, dtype=torch.float64)
        keys, rows = keys.sort()
        room = self.byte_budget * 8 // self.bits + 1  # values: more samples than fit, whatever their size
        keys, rows = keys[:room], rows[:room]
        newcomers = SyntheticSet.of_real(data.subset(rows))
        held = self.recall()
        everyone = newcomers if held is None else union([held, newcomers], provenance={})
        keys = torch.cat([self._keys, keys])
        chosen = self._fitting(everyone, keys.argsort()[: sum(self._share(data, _all_of_one_class(data, len(keys))))])
        self._keys = keys[chosen]
        self._keep(everyone.subset(chosen))
        self._experiences += 1

    def _fitting(self, everyone: SyntheticSet, chosen: Tensor) -> Tensor:
        """As many of ``chosen`` as fit, in order of class: how many digits their counts take is seen only here."""
        while True:
            ordered = chosen[everyone.hard_labels[chosen].argsort(stable=True)]
            if encoded_bytes(everyone.subset(ordered), self.bits, provenance=False) <= self.byte_budget:
                return ordered
            chosen = chosen[:-1]


def _all_of_one_class(data: LabelledData, count: int) -> list[int]:
    return [count] + [0] * (data.num_classes - 1)


@dataclass
class HybridMemory:
    """Every part takes in every experience; what is remembered is all that they hold. Bytes are their sum.

    Attributes:
        parts: each within a byte budget of its own.
    """

    parts: tuple[Memory, ...]

    @property
    def bytes_kept(self) -> int:
        return sum(part.bytes_kept for part in self.parts)

    def add(self, data: LabelledData) -> None:
        for part in self.parts:
            part.add(data)

    def recall(self) -> SyntheticSet | None:
        held = [one for one in (part.recall() for part in self.parts) if one is not None]
        return union(held, provenance={}) if held else None

    def state(self) -> dict[str, Any]:
        return {"parts": [part.state() for part in self.parts]}

    def restore(self, state: dict[str, Any]) -> None:
        for part, one in zip(self.parts, state["parts"], strict=True):
            part.restore(one)
