"""Memories of distilled samples under a byte budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from fedcl_distill.data import DataLike, DataSpec, LabelledData, Normalisation
from fedcl_distill.engine import Budget, ByteBudget, Distiller, Engine, Size, finished
from fedcl_distill.engine.size import AbsentClasses, bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.methods.private import PrivateStatistics
from fedcl_distill.parameterizations import LowRank, Parameterization, Pixels, Tiles
from fedcl_distill.privacy import Guarantee, NoiseSource, publicly_scaled
from fedcl_distill.privacy.accounting import composed, weakest
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.statistics import NoisyStatistics
from fedcl_distill.synthetic import SyntheticSet, union
from fedcl_distill.synthetic.quantise import Bits
from strategies.continual.memory import EncodedMemory, Memory

_BY_ROWS = (Pixels, Tiles, LowRank)


def stored_by_rows(parameterization: Parameterization) -> bool:
    """Whether each row of the stored arrays decodes by itself, to the same number of samples."""
    return isinstance(parameterization, _BY_ROWS)


def leading_rows(held: SyntheticSet, have: Sequence[int], keep: Sequence[int]) -> SyntheticSet:
    """Of the decoded samples of each class, in order of class and ``have`` of each, the first ``keep``.

    Core sets have the best samples of a class first; others have no order.
    """
    classes = _classes_of_rows(held, have)
    each = _samples_a_row(held)
    kept = [torch.nonzero(classes == label).flatten()[: count // each] for label, count in enumerate(keep)]
    return _rows(held, torch.cat(kept))


def merged(parts: Sequence[SyntheticSet], have: Sequence[Sequence[int]]) -> SyntheticSet:
    """All of ``parts`` in one set, in order of class; ``have`` are the decoded samples of each class in each part.

    Within a class the parts are shuffled into each other evenly, so that whatever is cut off its end takes from each.
    """
    first = parts[0]
    everyone = replace(
        first,
        arrays={name: torch.cat([part.arrays[name] for part in parts]) for name in first.arrays},
        labels=torch.cat([part.labels for part in parts]),
    )
    classes = [_classes_of_rows(part, counts) for part, counts in zip(parts, have, strict=True)]
    places = torch.cat([one.double() + _place_within(one) for one in classes])
    return _rows(everyone, places.argsort(stable=True))


def _place_within(classes: Tensor) -> Tensor:
    """float64 (rows,), in (0, 1): how far through its class each row stands; ``classes`` ascend."""
    counts = torch.bincount(classes)
    first = counts.cumsum(0) - counts
    return (torch.arange(len(classes)) - first[classes] + 0.5) / counts[classes].double()


def _samples_a_row(held: SyntheticSet) -> int:
    return len(held) // len(next(iter(held.arrays.values())))


def _classes_of_rows(held: SyntheticSet, have: Sequence[int]) -> Tensor:
    """int64 (rows,). Labels do not tell where they are soft: the most probable class may be another one."""
    return torch.arange(len(have)).repeat_interleave(torch.tensor(have))[:: _samples_a_row(held)]


def _rows(held: SyntheticSet, rows: Tensor) -> SyntheticSet:
    each = _samples_a_row(held)
    samples = (rows[:, None] * each + torch.arange(each)).flatten()
    return replace(held, arrays={name: array[rows] for name, array in held.arrays.items()}, labels=held.labels[samples])


Counts = list[int]
_A_FEW = 20  # samples of a class: every parameterization can store something of so many
_LOG = logging.getLogger(__name__)


@settings(frozen=False)
class DistilledMemory(EncodedMemory):
    """Distils each experience, and condenses what it holds further as classes arrive.

    The budget is divided evenly over the classes seen so far. What is held of old classes shrinks by distilling *it*
    again, with the held samples in the place of real data, for real data of old classes are gone. ``redistil=False``
    keeps the first samples of each class instead: for a core set they are the best ones, so that herding keeps the
    exemplars of iCaRL (Rebuffi et al. 2017); for a distillation it costs about half the seconds for less than a point
    of accuracy (6,000 images of Fashion-MNIST, 10 a class in the end). With ``final_shares`` the budget is divided over
    all classes that there will be, so that each is distilled once, from real data alone.

    A class that comes back in its nth experience gets an nth of its share from the new samples, and keeps the rest.
    Where a single sample is left to a class, the newest experience has it.

    Soft labels are kept, and count. Pixels, tiles and low-rank factors are stored together; what shares storage within
    a set (addresses, a generator) is kept as two sets, of the old and of the newest experience, and both headers count.

    Attributes:
        distiller: any distillation method or core set.
        budget: for each distillation, where the method's own is not meant.
        seed: fixes every draw.
        redistil: shrink old classes by distilling them again.
        final_shares: give each class, from the start, what it will have when all classes are there: the memory grows as
            they come, and part of the budget waits for them.
        value_range: of real samples, where what is added was distilled itself and may leave it; None takes that of
            what is added.

    Raises:
        SettingsError: on construction, if samples that share their storage are to be dropped; from ``add``, if not even
            one sample fits.
    """

    distiller: Distiller = field(kw_only=True)
    budget: Budget | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    redistil: bool = field(default=True, kw_only=True)
    final_shares: bool = field(default=False, kw_only=True)
    value_range: tuple[float, float] | None = field(default=None, kw_only=True)
    _experiences: int = field(default=0, init=False, repr=False)
    _visits: Counts = field(default_factory=list, init=False, repr=False)
    _counts: list[Counts] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.redistil or self._by_rows):
            how = self.distiller.parameterization.name
            raise SettingsError(f"samples that share their storage cannot be dropped one by one ({how}): redistil them")

    @property
    def soft_labels(self) -> bool:
        return self.distiller.labels.soft

    def check(self, data: LabelledData) -> None:
        budget, how = ByteBudget(self.byte_budget, self.bits), self.distiller.parameterization
        counts_within_bytes(budget, data, how, [_A_FEW] * data.num_classes, soft_labels=self.soft_labels)

    def add(self, data: LabelledData) -> None:
        data = self._align(data, widen=self.value_range is None)
        classes = data.num_classes
        self._counts = [_padded(counts, classes) for counts in self._counts]
        old = [sum(counts) for counts in zip(*self._counts, strict=True)] or [0] * classes
        visits = _padded(self._visits, classes)
        fresh = data.class_counts.tolist()
        visits = [times + (count > 0) for times, count in zip(visits, fresh, strict=True)]
        new, kept = self._divided(data, old, fresh, visits)
        parts = [(self._distil(data, new, "new"), new)] if any(new) else []
        if any(kept):
            parts.append((self._shrunk(data, kept), kept))
        if self._by_rows:
            parts = [self._merged(data, parts)]
        self._keep(*(held for held, _ in parts))
        self._counts = [counts for _, counts in parts]
        self._visits = visits
        self._experiences += 1

    @property
    def _by_rows(self) -> bool:
        return stored_by_rows(self.distiller.parameterization)

    def _divided(
        self, data: LabelledData, old: Sequence[int], fresh: Sequence[int], visits: Sequence[int]
    ) -> tuple[Counts, Counts]:
        """Whole samples of each class for the new experience, and for what is held, that fit into the budget."""
        available = [a + b for a, b in zip(old, fresh, strict=True)]
        expected = [count or max(available) for count in available] if self.final_shares else available
        allowance = self.byte_budget
        while True:
            counts = counts_within_bytes(
                ByteBudget(allowance, self.bits),
                data,
                self.distiller.parameterization,
                expected,
                soft_labels=self.soft_labels,
            )
            counts = [min(pair) for pair in zip(counts, available, strict=True)]
            if not any(counts):
                raise SettingsError(f"{self.byte_budget} bytes hold no sample of every class, as final_shares need")
            new = [_newcomers(*one) for one in zip(counts, old, fresh, visits, strict=True)]
            kept = [count - one for count, one in zip(counts, new, strict=True)]
            excess = self._bytes_of(data, new, kept) - self.byte_budget
            if excess <= 0:
                _tell_of_lost_classes(self.byte_budget, counts, available)
                return new, kept
            allowance -= excess  # two headers

    def _bytes_of(self, data: LabelledData, new: Counts, kept: Counts) -> int:
        how, soft = self.distiller.parameterization, self.soft_labels
        parts = [[a + b for a, b in zip(new, kept, strict=True)]] if self._by_rows else [new, kept]
        return sum(bytes_of_counts(part, data, self.bits, how, soft_labels=soft) for part in parts if any(part))

    def _shrunk(self, data: LabelledData, counts: Counts) -> SyntheticSet:
        """What is held, with ``counts`` whole samples of each class."""
        sets = self._held()
        if len(sets) == 1 and counts == self._counts[0]:
            return sets[0]
        if not self.redistil:
            return leading_rows(sets[0], self._decoded(data, self._counts[0]), self._decoded(data, counts))
        held = union(sets, provenance={})
        decoded = [torch.tensor(self._decoded(data, one)) for one in self._counts]
        classes = [torch.arange(data.num_classes).repeat_interleave(one) for one in decoded]
        real = held.as_labelled_data("memory")
        stand_in = replace(real, labels=torch.cat(classes))
        return self._distil(stand_in, counts, "old").with_spec(value_range=held.value_range)

    def _distil(self, data: LabelledData, counts: Counts, what: str) -> SyntheticSet:
        seed = derive_seed(self.seed, what, self._experiences)
        made = finished(self.distiller.distil(data, counts, seed=seed, budget=self.budget, absent_classes="skip"))
        return made if self.value_range is None else made.with_spec(value_range=self.value_range)

    def _merged(self, data: LabelledData, parts: Sequence[tuple[SyntheticSet, Counts]]) -> tuple[SyntheticSet, Counts]:
        held = merged([one for one, _ in parts], [self._decoded(data, counts) for _, counts in parts])
        return held, [sum(counts) for counts in zip(*(counts for _, counts in parts), strict=True)]

    def _decoded(self, data: LabelledData, counts: Counts) -> Counts:
        return self.distiller.parameterization.decoded_counts(counts, data.sample_shape)


def _tell_of_lost_classes(byte_budget: int, counts: Counts, available: Counts) -> None:
    lost = [label for label, (count, had) in enumerate(zip(counts, available, strict=True)) if had and not count]
    if lost:
        _LOG.warning("%d bytes hold no sample of the classes %s: they will be forgotten", byte_budget, lost)


def _padded(counts: Counts, classes: int) -> Counts:
    """``counts``, with 0 for the classes that came since."""
    return counts + [0] * (classes - len(counts))


def _newcomers(count: int, old: int, fresh: int, visits: int) -> int:
    """How many of a class's ``count`` samples come from the new experience, which has ``fresh`` ones."""
    return min(fresh, max(-(-count // max(visits, 1)), count - old))


Inputs = dict[int, Tensor]  # normalised samples of each class


@dataclass(frozen=True)
class GivenInit:
    """Initial samples that are there already."""

    inputs: Tensor

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        return self.inputs

    def settings(self) -> dict[str, Any]:
        return {"init": "given"}


@settings(frozen=False)
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
    budget: Budget | None = field(default=None, kw_only=True)
    buffer_size: Count = field(default=32, kw_only=True)
    buffer_share: Annotated[float, Range(ge=0, lt=1)] = field(default=0.5, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _condensations: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.distiller, Engine):
            raise SettingsError(f"{self.distiller.name} selects samples; condensing needs a distillation method")
        if not isinstance(self.distiller.parameterization, Pixels) or self.distiller.labels.soft:
            raise SettingsError(f"{self.distiller.name} must store pixels with classes to be condensed step by step")
        self._rooms: dict[tuple[object, ...], tuple[list[int], int]] = {}  # no field: no part of a checkpoint

    def check(self, data: LabelledData) -> None:
        self._room(data)

    def add(self, data: LabelledData) -> None:
        data = self._align(data)
        counts, room = self._room(data)
        held = [_by_class(one) for one in self._held()] or [{}, {}]
        synthetic, buffers = held[0], held[1] if len(held) > 1 else {}
        synthetic = {label: own[: counts[label]] for label, own in synthetic.items()}  # fewer, once classes have come
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
        self._keep(*(_as_set(one, data.spec) for one in (synthetic, buffers) if sum(map(len, one.values()))))

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
        made = replace(self.distiller, init=GivenInit(start)).distil(
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


@settings(frozen=False)
class PrivateMemory(Memory):
    """Keeps samples distilled from noisy statistics: one release of each experience.

    Each experience is released once and distilled; old classes shrink by dropping samples, which looks at no record.
    A record may come back in a later experience: then the guarantee of the memory is that of all its releases, one
    after the other. Where ``disjoint`` says that none does, it is that of one. It protects single records, not all
    that a person has; and what is *kept*: the model that trains on an experience sees its records as they are.

    Attributes:
        byte_budget, bits: as of :class:`DistilledMemory`.
        method: what is released, how private, and from which ledger it is paid.
        disjoint: whether you state that no record is in two experiences (:func:`~fedcl_distill.privacy.shared_records`
            tests it on one site). Then the ledger has a part for each of them.
        budget: of each distillation.
        seed: fixes every draw but the noise.
    """

    byte_budget: Count
    bits: Bits = 8
    method: PrivateStatistics = field(kw_only=True)
    disjoint: bool = field(default=False, kw_only=True)
    budget: Budget | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _guarantees: list[Guarantee | None] = field(default_factory=list, init=False, repr=False)
    _scale: Normalisation | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._source = _FromRelease(self.method)
        self._held = DistilledMemory(
            self.byte_budget, self.bits, distiller=self._source, budget=self.budget, seed=self.seed, redistil=False
        )

    def check(self, data: LabelledData) -> None:
        self._held.check(data)

    @property
    def guarantee(self) -> Guarantee | None:
        """Of all that is kept; None before the first experience, and without noise."""
        return weakest(self._guarantees) if self.disjoint else composed(self._guarantees)

    @property
    def bytes_kept(self) -> int:
        return self._held.bytes_kept

    def add(self, data: LabelledData) -> None:
        """Release and distil one experience.

        Raises:
            SettingsError: the byte budget does not hold a single sample, or the data have no public scale.
            PrivacyError: the ledger does not cover the release; nothing was looked at.
        """
        number = len(self._guarantees)
        public = publicly_scaled(data, value_range=self.method.public_range)
        seed = self.method.noise_seed
        noise = NoiseSource.fresh() if seed is None else NoiseSource.seeded(derive_seed(seed, "experience", number))
        released = self.method.release(public, noise, part=f"experience {number}" if self.disjoint else "")
        self._source.released = released
        blank = released.as_statistics().as_blank_data()
        if len(blank):  # noise can hide that a few records were there at all
            self._held.add(blank)
        self._guarantees.append(released.guarantee)
        self._scale = data.normalisation

    def recall(self) -> SyntheticSet | None:
        """What is remembered, on the scale of the stream: what is kept has a public one."""
        held = self._held.recall()
        if held is None or self._scale is None:
            return held
        inputs = self._scale.apply(held.samples())
        rescaled = replace(held, arrays={"pixels": inputs}, parameterization=Pixels())
        return rescaled.with_spec(normalisation=self._scale)

    def state(self) -> dict[str, Any]:
        known = [None if one is None else one.as_record() for one in self._guarantees]
        scale = None if self._scale is None else [list(self._scale.mean), list(self._scale.std)]
        return {"held": self._held.state(), "guarantees": known, "scale": scale}

    def restore(self, state: dict[str, Any]) -> None:
        self._held.restore(state["held"])
        self._guarantees = [None if one is None else Guarantee.of(one) for one in state["guarantees"]]
        self._scale = None if state["scale"] is None else Normalisation(*map(tuple, state["scale"]))


@dataclass
class _FromRelease:
    """Distils what was released last, whatever data it is given: those are blank."""

    method: PrivateStatistics
    released: NoisyStatistics | None = None
    labels: Labels = field(default_factory=HardLabels)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def parameterization(self) -> Parameterization:
        return self.method.parameterization

    def distil(
        self,
        real: DataLike,
        size: Size,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        device: Any = "cpu",
        callbacks: Any = (),
        checkpoint: Any = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        assert self.released is not None
        return self.method.distil_noisy(
            self.released, size, seed=seed, budget=budget, device=device, absent_classes=absent_classes
        )
