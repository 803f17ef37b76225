"""A memory of distilled samples under a byte budget."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, ByteBudget, Distiller, finished
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet, union
from strategies.continual.memories.base import EncodedMemory
from strategies.continual.memories.stored_rows import leading_rows, merged, stored_by_rows

Counts = list[int]
_LOG = logging.getLogger(__name__)


@dataclass
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
    _experiences: int = field(default=0, repr=False)
    _visits: Counts = field(default_factory=list, repr=False)
    _counts: list[Counts] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if not (self.redistil or self._by_rows):
            how = self.distiller.parameterization.name
            raise SettingsError(f"samples that share their storage cannot be dropped one by one ({how}): redistil them")

    def add(self, data: LabelledData) -> None:
        old = [sum(counts) for counts in zip(*self._counts, strict=True)] or [0] * data.num_classes
        visits = self._visits or [0] * data.num_classes
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
                soft_labels=self.distiller.labels.soft,
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
        how, soft = self.distiller.parameterization, self.distiller.labels.soft
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


def _newcomers(count: int, old: int, fresh: int, visits: int) -> int:
    """How many of a class's ``count`` samples come from the new experience, which has ``fresh`` ones."""
    return min(fresh, max(-(-count // max(visits, 1)), count - old))
