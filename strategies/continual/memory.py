"""Memories of past experiences under a byte budget; they know nothing of Avalanche."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, Distiller
from fedcl_distill.engine.size import ByteBudget, spread_in_bytes
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.synthetic import SyntheticSet, decode, encode, encoded_bytes, union


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
        bits: a stored value: 4, 8, 16 or 32; 8 hold uint8 images exactly.
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


@dataclass
class DistilledMemory(EncodedMemory):
    """Distils each experience, and condenses what it holds further as classes arrive.

    The budget is divided evenly over the classes seen so far. What is held of old classes shrinks by distilling *it*
    again, with the held samples in the place of real data, for real data of old classes are gone. ``redistil=False``
    drops samples at random instead.

    Attributes:
        distiller: any distillation method or core set.
        budget: for each distillation, where the method's own is not meant.
        seed: fixes every draw.
        redistil: shrink old classes by distilling them again.
    """

    distiller: Distiller = field(kw_only=True)
    budget: Budget | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    redistil: bool = field(default=True, kw_only=True)
    _experiences: int = field(default=0, repr=False)

    def add(self, data: LabelledData) -> None:
        held = self.recall()
        old = torch.zeros(data.num_classes, dtype=torch.int64) if held is None else held.class_counts
        # A class that comes back is distilled from its new samples; what was held of it makes room.
        old = torch.where(data.class_counts > 0, 0, old)
        counts = self._share(data, (old + data.class_counts).tolist())
        new = [count if fresh else 0 for count, fresh in zip(counts, data.class_counts.tolist(), strict=True)]
        kept = [count - fresh for count, fresh in zip(counts, new, strict=True)]
        parts = [self._distil(data, new, "new")] if any(new) else []
        if held is not None and any(kept):
            parts.append(self._shrink(held, kept, data.mirrorable))
        self._keep(_by_class(union(parts, provenance={})))
        self._experiences += 1

    def _shrink(self, held: SyntheticSet, counts: list[int], mirrorable: bool) -> SyntheticSet:
        if self.redistil and counts != held.class_counts.tolist():
            stand_in = replace(held.as_labelled_data("memory"), mirrorable=mirrorable)
            return replace(self._distil(stand_in, counts, "old"), value_range=held.value_range)
        generator = generator_for(self.seed, "drop", self._experiences)
        rows = [torch.nonzero(held.hard_labels == label).flatten() for label in range(held.num_classes)]
        kept = [
            row[torch.randperm(len(row), generator=generator)[:count]] for row, count in zip(rows, counts, strict=True)
        ]
        return held.subset(torch.cat(kept))

    def _distil(self, data: LabelledData, counts: list[int], what: str) -> SyntheticSet:
        seed = derive_seed(self.seed, what, self._experiences)
        return self.distiller.distil(data, counts, seed=seed, budget=self.budget, absent_classes="skip")


@dataclass
class ReservoirMemory(EncodedMemory):
    """A uniform random sample of everything seen (Vitter 1985), the baseline of replay.

    Every sample seen draws a random key, and the smallest keys stay: no sample is favoured, whatever the order.

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
        newcomers = _as_set(data.subset(rows))
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


def _as_set(data: LabelledData) -> SyntheticSet:
    return SyntheticSet(
        Pixels().start(data.inputs()),
        Pixels(),
        data.labels,
        data.class_names,
        data.normalisation,
        data.value_range,
    )


def _by_class(held: SyntheticSet) -> SyntheticSet:
    return held.subset(held.hard_labels.argsort(stable=True))
