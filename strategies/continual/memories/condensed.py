"""A memory that distils samples as they pass, in a stream that is seen once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.engine import Budget, ByteBudget, Distiller, Engine, finished
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.memories.base import EncodedMemory

Inputs = dict[int, Tensor]  # normalised samples of each class


@dataclass(frozen=True)
class Given:
    """Initial samples that are there already."""

    inputs: Tensor

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        return self.inputs

    def settings(self) -> dict[str, Any]:
        return {"init": "given"}


@dataclass
class CondensedMemory(EncodedMemory):
    """Few synthetic samples of each class, and a small buffer of real ones that, when full, are condensed into them.

    The first samples of a class are its synthetic samples' start. When ``buffer_size`` samples of a class have passed,
    a few steps of the distiller move its synthetic samples, from where they are, towards the buffered ones and
    themselves together, so that what they learned earlier counts too; then the buffer is empty again. Gu et al. (2024)
    summarise a stream this way, with another objective. A class has as many synthetic samples as the budget allows for
    all classes of the data, so that none has to shrink later. Buffers count among the bytes; when they would exceed the
    budget, the class with the fullest one is condensed early.

    Attributes:
        distiller: a distillation method that stores pixels, with hard labels.
        budget: of each condensation.
        buffer_size: real samples of a class to wait for.
        buffer_share: of the bytes that buffers may take, below 1; with 0 what arrives is condensed at once.
        seed: fixes every draw.

    Raises:
        SettingsError: on construction, if the distiller is a core set or stores anything but pixels and classes.
    """

    distiller: Distiller = field(kw_only=True)
    budget: Budget | None = field(kw_only=True)
    buffer_size: int = field(default=32, kw_only=True)
    buffer_share: float = field(default=0.5, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _condensations: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.distiller, Engine):
            raise SettingsError(f"{self.distiller.name} selects samples; condensing needs a distillation method")
        if not isinstance(self.distiller.parameterization, Pixels) or self.distiller.labels.soft:
            raise SettingsError(f"{self.distiller.name} must store pixels with classes to be condensed step by step")
        if self.buffer_size < 1 or not 0 <= self.buffer_share < 1:
            raise SettingsError("a condensed memory needs buffer_size ≥ 1 and 0 ≤ buffer_share < 1")
        self._rooms: dict[tuple[object, ...], tuple[list[int], int]] = {}  # no field: no part of a checkpoint

    def add(self, data: LabelledData) -> None:
        counts, room = self._room(data)
        held = [_by_class(one) for one in self._held()] or [{}, {}]
        synthetic, buffers = held[0], held[1] if len(held) > 1 else {}
        for label in data.class_counts.nonzero().flatten().tolist():
            arrived = data.inputs(data.indices_of(label))
            own = synthetic.get(label, arrived[:0])
            missing = counts[label] - len(own)
            synthetic[label], arrived = torch.cat([own, arrived[:missing]]), arrived[missing:]
            buffers[label] = torch.cat([buffers.get(label, arrived[:0]), arrived])
            while len(buffers[label]) >= self.buffer_size:
                self._condense(label, synthetic, buffers, data)
        while sum(map(len, buffers.values())) > room:
            self._condense(max(buffers, key=lambda label: len(buffers[label])), synthetic, buffers, data)
        self._keep(*(_as_set(one, data) for one in (synthetic, buffers) if sum(map(len, one.values()))))

    def _room(self, data: LabelledData) -> tuple[list[int], int]:
        """Synthetic samples of each class, and how many real ones fit beside them: found once, for a stream is long."""
        kind = (data.sample_shape, data.class_names)
        if kind not in self._rooms:
            self._rooms[kind] = self._found_room(data)
        return self._rooms[kind]

    def _found_room(self, data: LabelledData) -> tuple[list[int], int]:
        for_buffers = int(self.buffer_share * self.byte_budget)
        plenty = [1 + 8 * self.byte_budget // (self.bits * math.prod(data.sample_shape))] * data.num_classes
        how = self.distiller.parameterization
        counts = counts_within_bytes(ByteBudget(self.byte_budget - for_buffers, self.bits), data, how, plenty)
        if min(counts) == 0:
            raise SettingsError(
                f"{self.byte_budget - for_buffers} bytes hold no synthetic sample of every class of {data.name}"
            )
        rest = self.byte_budget - bytes_of_counts(counts, data, self.bits)
        if rest < bytes_of_counts([1] + [0] * (data.num_classes - 1), data, self.bits):
            return counts, 0
        return counts, sum(counts_within_bytes(ByteBudget(rest, self.bits), data, how, plenty))

    def _condense(self, label: int, synthetic: Inputs, buffers: Inputs, data: LabelledData) -> None:
        """Move the class's synthetic samples by its first buffered ones, which are given up."""
        assert isinstance(self.distiller, Engine)
        start, waiting = synthetic[label], buffers[label]
        buffers[label] = waiting[self.buffer_size :]
        everything = _as_set({label: torch.cat([start, waiting[: self.buffer_size]])}, data.spec)
        real = everything.as_labelled_data("memory")
        made = replace(self.distiller, init=Given(start)).distil(
            real,
            [len(start) if one == label else 0 for one in range(data.num_classes)],
            seed=derive_seed(self.seed, "condense", self._condensations),
            budget=self.budget,
            absent_classes="skip",
        )
        synthetic[label] = finished(made).inputs()
        self._condensations += 1


def _by_class(held: SyntheticSet) -> Inputs:
    inputs, labels = held.inputs(), held.hard_labels
    return {label: inputs[labels == label] for label in held.class_counts.nonzero().flatten().tolist()}


def _as_set(by_class: Inputs, spec: DataSpec) -> SyntheticSet:
    labels = sorted(by_class)
    counts = torch.tensor([len(by_class[label]) for label in labels])
    return SyntheticSet(
        arrays={"pixels": torch.cat([by_class[label] for label in labels])},
        parameterization=Pixels(),
        labels=torch.tensor(labels).repeat_interleave(counts),
        spec=spec,
    )
