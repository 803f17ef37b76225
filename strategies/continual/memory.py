"""What every memory of past experiences offers, and the plain ones; nothing here knows of Avalanche."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.engine.size import ByteBudget, counts_within_bytes
from fedcl_distill.errors import DataError
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic import SyntheticSet, decode, encode, encoded_bytes, union
from fedcl_distill.synthetic.quantise import Bits


class Memory(ABC):
    """What is kept of the past, in how many bytes. It serves any training loop; nothing of it needs Avalanche.

    A memory holds encoded sets, so that what is replayed is what its bytes hold. Subclass it for a kind of your own,
    and register it with ``MEMORIES.register("name")``.

    Example:
        >>> from fedcl_distill import load_data
        >>> data = load_data("digits").train
        >>> memory = ReservoirMemory(2_000)
        >>> memory.add(data.subset(torch.arange(500)))
        >>> memory.add(data.subset(torch.arange(500, 1000)))
        >>> held = memory.recall()
        >>> memory.bytes_kept <= 2_000, tuple(held.inputs().shape[1:])
        (True, (1, 8, 8))
    """

    @property
    @abstractmethod
    def bytes_kept(self) -> int:
        """Size of the memory in bytes: all encoded sets, without provenance."""

    @property
    def soft_labels(self) -> bool:
        """Whether what is remembered has probabilities for labels."""
        return False

    @abstractmethod
    def add(self, data: LabelledData) -> None:
        """Take in one experience, and shrink what is held to make room.

        Later data may bring classes beyond those known so far (their names go on the list's end), and float data a
        wider range of values; all else must stay as it was.

        Raises:
            SettingsError: the byte budget does not hold a single sample.
            DataError: the data are of another kind than those before.
        """

    @abstractmethod
    def recall(self) -> SyntheticSet | None:
        """What is remembered; None before the first experience."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors, numbers, texts, and lists and dictionaries of these."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another memory's :meth:`state`, made with the same settings."""

    def check(self, data: LabelledData) -> None:  # noqa: B027 - most memories have nothing to refuse
        """Return if data like ``data``, whose first sample is looked at, can be taken in; called before training.

        Raises:
            SettingsError: they cannot.
        """


@settings(frozen=False)
class EncodedMemory(Memory):
    """The common part: payloads, their bound, and how deep values are stored.

    Payloads are of the coding "fixed": a stream may change a memory with every mini-batch, and shares of classes are
    divided before there are values. :func:`~fedcl_distill.synthetic.encode` makes what is held smaller for a file.

    Attributes:
        byte_budget: most bytes to keep.
        bits: of a stored value: 2, 4, 8, 16 or 32. 8 keep uint8 images within half a grey level, and exactly where both
            black and white occur.

    Raises:
        SettingsError: on construction, if the budget or the bits cannot be.
    """

    byte_budget: Count
    bits: Bits = 8
    _payloads: tuple[bytes, ...] = field(default=(), init=False, repr=False)

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

    def check(self, data: LabelledData) -> None:
        self._share(data, [1, *[0] * (data.num_classes - 1)])

    def _own(self) -> list[str]:
        """Fields that change while experiences come."""
        return [one.name for one in fields(self) if one.name.startswith("_")]

    def _held(self) -> list[SyntheticSet]:
        return [decode(payload) for payload in self._payloads]

    def _keep(self, *held: SyntheticSet) -> None:
        self._payloads = tuple(encode(one, self.bits, provenance=False, coding="fixed") for one in held)

    def _share(self, data: LabelledData, available: Sequence[int]) -> list[int]:
        """How many samples of each class fit, spread evenly over the classes, given how many there are."""
        return counts_within_bytes(ByteBudget(self.byte_budget, self.bits), data, Pixels(), available)

    def _align(self, data: LabelledData, *, widen: bool = True) -> LabelledData:
        """``data`` in the range of all that was seen; what is held gets that range and the data's new classes."""
        held = self._held()
        if not held:
            return data
        names, known = held[0].class_names, held[0].value_range
        if data.class_names[: len(names)] != names:
            raise DataError(f"the memory holds classes {names}, which the new data do not begin with")
        span = _covering(known, data.value_range) if widen else known
        if len(data.class_names) > len(names) or span != known:
            self._keep(*(_extended(one, data.class_names, span) for one in held))
        return data.with_spec(value_range=span) if widen and span != data.value_range else data


def kind_without_samples(like: DataSpec | LabelledData) -> LabelledData:
    """Data of the kind of ``like`` without a sample: float where only a spec is known, which pixels fit as well."""
    if isinstance(like, LabelledData):
        return like.subset(torch.zeros(0, dtype=torch.int64))
    return LabelledData(torch.zeros(0, *like.sample_shape), torch.zeros(0, dtype=torch.int64), like)


def as_tensor(payload: bytes) -> Tensor:
    """uint8 (bytes,): a payload as checkpoints hold it."""
    return torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else torch.zeros(0, dtype=torch.uint8)


def as_bytes(tensor: Tensor) -> bytes:
    """The inverse of :func:`as_tensor`."""
    return tensor.numpy().tobytes()


def _covering(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


def _extended(held: SyntheticSet, names: tuple[str, ...], span: tuple[float, float]) -> SyntheticSet:
    """``held`` with more classes, of which it has no sample, and another range."""
    more = len(names) - held.num_classes
    labels = F.pad(held.labels, (0, more)) if held.labels.ndim == 2 else held.labels
    return replace(held, labels=labels, spec=replace(held.spec, class_names=names, value_range=span))


@settings(frozen=False)
class ReservoirMemory(EncodedMemory):
    """A uniform random sample of everything seen (Vitter 1985), the baseline of replay.

    Every sample seen draws a random key, and the smallest keys stay: no sample is favoured, whatever the order.
    Keys are bookkeeping and not counted: Vitter's algorithm R would choose as uniformly without them.

    Attributes:
        seed: fixes the keys.
    """

    seed: int = field(default=0, kw_only=True)
    _keys: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), init=False, repr=False)
    _experiences: int = field(default=0, init=False, repr=False)

    def add(self, data: LabelledData) -> None:
        data = self._align(data)
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
            size = encoded_bytes(everyone.subset(ordered), self.bits, provenance=False, coding="fixed")
            if size <= self.byte_budget:
                return ordered
            chosen = chosen[:-1]


def _all_of_one_class(data: LabelledData, count: int) -> list[int]:
    return [count] + [0] * (data.num_classes - 1)


@dataclass
class HybridMemory(Memory):
    """Every part takes in every experience; what is remembered is all that they hold. Bytes are their sum.

    Attributes:
        parts: each within a byte budget of its own.
    """

    parts: tuple[Memory, ...]

    @property
    def bytes_kept(self) -> int:
        return sum(part.bytes_kept for part in self.parts)

    @property
    def soft_labels(self) -> bool:
        return any(part.soft_labels for part in self.parts)

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

    def check(self, data: LabelledData) -> None:
        for part in self.parts:
            part.check(data)
