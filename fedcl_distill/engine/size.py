"""How much: the size of a synthetic set (samples a class, counts, bytes), and the work it may take."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, spec_of
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.parameterizations import Parameterization, Pixels, Tiles
from fedcl_distill.settings import Count, Natural, NonNegative, settings
from fedcl_distill.synthetic import SyntheticSet, encoded_bytes
from fedcl_distill.synthetic.quantise import Bits

_LOG = logging.getLogger(__name__)
_PATIENCE = 2  # windows


@settings
class Budget:
    """Optimisation steps or seconds (preparation included); at least one of them.

    Only a budget of steps is reproducible bit by bit: how many steps fit into a second is the machine's affair.

    Attributes:
        steps: optimisation steps.
        seconds: by ``clock``. Preparation (generators, teachers, networks that train on the real data) counts, and gets
            half of them at most: it then does less than a budget of steps would let it, and at least one step of each.
        clock: "wall", or "cpu": seconds of all threads of this process, which hang less on what else the machine
            does.
        plateau: ends the run earlier, once the mean loss of two successive windows of so many steps is no lower than
            that of any window before; None goes on.

    Raises:
        SettingsError: on construction, if a value is out of range or there are neither steps nor seconds.
    """

    steps: Natural | None = None
    seconds: NonNegative | None = None
    clock: Literal["wall", "cpu"] = "wall"
    plateau: Count | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            beside = "" if self.plateau is None else ", beside plateau too"
            raise SettingsError(f"a budget needs steps or seconds{beside}")

    def now(self) -> float:
        """The clock's reading, in seconds; only differences mean anything."""
        return time.process_time() if self.clock == "cpu" else time.monotonic()

    @classmethod
    def if_given(
        cls,
        steps: int | None,
        seconds: float | None,
        clock: Literal["wall", "cpu"] = "wall",
        plateau: int | None = None,
    ) -> Budget | None:
        """A budget, or None where neither steps nor seconds are given: a method then takes its own.

        Raises:
            SettingsError: a plateau without either, or a value out of range.
        """
        return None if steps is None and seconds is None and plateau is None else cls(steps, seconds, clock, plateau)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the budget that is spent, in [0, 1]; 1 ends the run."""
        by_steps = 0.0 if self.steps is None else (step / self.steps if self.steps else 1.0)
        by_seconds = 0.0 if self.seconds is None else (seconds / self.seconds if self.seconds else 1.0)
        return min(1.0, max(by_steps, by_seconds))

    def settled(self, losses: Sequence[float]) -> bool:
        """Whether ``losses``, one for every step so far, say that the plateau is reached; asked after every step.

        Nothing else counts, so that a resumed run ends at the step where it would have ended in one go.
        """
        if not self.plateau or not losses or len(losses) % self.plateau:
            return False
        ends = range(self.plateau, len(losses) + 1, self.plateau)
        means = [statistics.fmean(losses[end - self.plateau : end]) for end in ends]
        return len(means) > _PATIENCE and min(means[-_PATIENCE:]) >= min(means[:-_PATIENCE])


AbsentClasses = Literal["error", "skip"]


@settings
class ByteBudget:
    """As many samples as fit into ``total_bytes`` once encoded with ``bits`` a value, provenance left out.

    How many that are depends on their values, which the payload codes; a payload of these ``bits`` never exceeds it.
    """

    total_bytes: Count
    bits: Bits = 8


Size = int | Sequence[int] | ByteBudget


def count_per_class(
    size: Size,
    real: LabelledData,
    parameterization: Parameterization,
    absent_classes: AbsentClasses = "error",
    *,
    soft_labels: bool = False,
) -> list[int]:
    """Samples of each class that a synthetic set of ``real`` gets; never more than the class has real samples.

    Classes that get fewer than ``size`` asks for are logged: as a warning, or as information where ``absent_classes``
    says that what there is will do.

    Raises:
        DataError: a class has no samples, and ``absent_classes`` is "error" or ``size`` asks for that class by name.
        SettingsError: ``size`` is negative, empty, of the wrong length, or too few bytes for a single sample.
    """
    available = real.class_counts.tolist()
    if isinstance(size, int | ByteBudget) and absent_classes == "error":
        real.require_every_class()
    if isinstance(size, ByteBudget):
        return counts_within_bytes(size, real, parameterization, available, soft_labels=soft_labels)
    wanted = [size] * real.num_classes if isinstance(size, int) else [int(count) for count in size]
    if len(wanted) != real.num_classes:
        raise SettingsError(f"{real.name} has {real.num_classes} classes, but {len(wanted)} counts were given")
    if min(wanted) < 0 or max(wanted) == 0:
        raise SettingsError(f"a synthetic set needs at least one sample and no negative count, got {size}")
    if not isinstance(size, int):
        if absent_classes == "error":
            real.require_every_class(wanted)
        for label, (want, have) in enumerate(zip(wanted, available, strict=True)):
            if want > 0 and have == 0:
                raise DataError(
                    f"{real.name}: {want} samples of class {real.class_names[label]} asked for, it has none"
                )
    counts = [min(want, have) for want, have in zip(wanted, available, strict=True)]
    if sum(counts) == 0:
        raise DataError(f"{real.name}: there are no samples to distil")
    short = fewer_than_asked(size, counts, real.class_names)
    if short:
        level = logging.WARNING if absent_classes == "error" else logging.INFO
        listed = ", ".join(f"{name}: {got} of {want}" for name, (got, want) in list(short.items())[:10])
        _LOG.log(level, "%s: fewer samples than asked for, as there are no more real ones: %s", real.name, listed)
    return counts


def fewer_than_asked(size: Size, counts: Sequence[int], class_names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """For each class that gets fewer samples than ``size`` asks for, by name: how many it gets, and of how many.

    A byte budget asks for no number.
    """
    if isinstance(size, ByteBudget):
        return {}
    wanted = [size] * len(counts) if isinstance(size, int) else size
    together = zip(class_names, counts, wanted, strict=True)
    return {name: (got, want) for name, got, want in together if got < want}


def counts_within_bytes(
    budget: ByteBudget,
    spec: DataSpec | LabelledData,
    parameterization: Parameterization,
    available: Sequence[int],
    *,
    soft_labels: bool = False,
) -> list[int]:
    """Samples of each class: as many as fit into the budget, spread evenly, at most ``available`` of each.

    Found by bisection: the encoded size grows with the number of samples. ``spec`` may be data that carry one.

    Raises:
        SettingsError: the budget does not hold a single sample.
    """

    def size_of(samples: int) -> int:
        return bytes_of_counts(spread(samples, available), spec, budget.bits, parameterization, soft_labels=soft_labels)

    low, high = 0, sum(available)
    while low < high:
        middle = (low + high + 1) // 2
        if _or_nothing(size_of, middle) <= budget.total_bytes:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        one = size_of(1)
        shape = spec_of(spec).sample_shape
        raise SettingsError(
            f"{budget.total_bytes} bytes hold no sample of shape {shape}: a single one takes {one} bytes"
        )
    return spread(low, available)


def counts_as_coded(
    budget: ByteBudget,
    problem: SetupContext,
    parameterization: Parameterization,
    counts: Sequence[int],
    *,
    selected: bool = False,
) -> list[int]:
    """More samples of each class than ``counts``, which fit whatever their values are: what fits once coded, about.

    Distilled values are noisier than real ones. Where real samples, stored so, shrink to a share s of their bytes,
    distilled ones are taken to shrink to (1 + 2 s) / 3, and ``selected`` real ones to s; :func:`cut_to_fit` mends what
    was promised too much. Where stored values are shared between samples, which could not be cut, and where a class
    has too few samples to see by, ``counts`` stay.
    """
    real = problem.real
    wanted = parameterization.decoded_counts(counts, real.sample_shape)
    available = real.class_counts.tolist()
    if not _is_separable(parameterization) or any(map(int.__gt__, wanted, available)):
        return list(counts)
    rows = torch.cat([real.indices_of(label)[:count] for label, count in enumerate(wanted)])
    some = real.subset(rows)
    arrays = settled(parameterization, parameterization.start(some.inputs(), counts, problem))
    stored = SyntheticSet(arrays, parameterization, some.labels, real.spec)
    coded, fixed = (encoded_bytes(stored, budget.bits, coding=coding) for coding in ("smallest", "fixed"))
    share = coded / fixed if selected else (1 + 2 * coded / fixed) / 3
    room = int(budget.total_bytes / share)
    return counts_within_bytes(ByteBudget(room, budget.bits), real, parameterization, available)


def cut_to_fit(made: SyntheticSet, budget: ByteBudget) -> SyntheticSet:
    """``made`` without the last samples of its largest classes, as many as it takes to fit into the budget once coded.

    Raises:
        SettingsError: not even one sample fits.
    """
    if not _is_separable(made.parameterization) or _fits(made, budget):
        return made
    rows = next(len(array) for array in made.arrays.values() if array.numel())
    each = len(made) // rows
    labels = made.hard_labels[::each]
    place = torch.cat([torch.arange(int((labels == label).sum())) for label in range(made.num_classes)])
    order = place[labels.argsort(stable=True).argsort()].argsort(stable=True)  # first of every class, second, …
    low, high = 0, rows - 1
    while low < high:  # about; what follows makes sure
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(_rows_of(made, order[:middle], each), budget) else (low, middle - 1)
    while low and not _fits(found := _rows_of(made, order[:low], each), budget):
        low -= 1
    if not low:
        raise SettingsError(f"{budget.total_bytes} bytes hold no sample of shape {made.sample_shape}")
    return found


def _fits(made: SyntheticSet, budget: ByteBudget) -> bool:
    return encoded_bytes(made, budget.bits, provenance=False) <= budget.total_bytes


def _rows_of(made: SyntheticSet, rows: Tensor, each: int) -> SyntheticSet:
    """``made`` with these stored rows alone, of which each decodes to so many samples."""
    rows = rows.sort().values
    arrays = {name: array[rows] if array.numel() else array for name, array in made.arrays.items()}
    samples = (rows[:, None] * each + torch.arange(each)).flatten()
    return replace(made, arrays=arrays, labels=made.labels[samples])


def _is_separable(parameterization: Parameterization) -> bool:
    """Whether each stored row is of its own samples alone, so that rows can be left out."""
    return bool(getattr(parameterization, "separable", False))


def settled(parameterization: Parameterization, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """``arrays`` as the parameterization wants them stored, where it has a say in that: what they decode to stays."""
    settle: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = getattr(parameterization, "settled", None)
    return arrays if settle is None else settle(arrays)


def bytes_of_counts(
    counts: Sequence[int],
    spec: DataSpec | LabelledData,
    bits: int,
    parameterization: Parameterization | None = None,
    *,
    soft_labels: bool = False,
) -> int:
    """Size at most of so many whole samples of each class, with ``bits`` a value and without provenance.

    Exactly that of coding "fixed": what values can be told beforehand by is not known of samples still to be made.

    ``spec`` may be data that carry one; ``parameterization`` says how samples are stored; None takes pixels.
    """
    blank = _blank(spec_of(spec), parameterization or Pixels(), counts, soft_labels)
    return encoded_bytes(blank, bits, coding="fixed")


def _or_nothing(size_of: Callable[[int], int], samples: int) -> int:
    """Encoded size; 0 where the parameterization needs more whole samples than these to store anything."""
    try:
        return size_of(samples)
    except SettingsError:
        return 0


def spread(total: int, available: Sequence[int]) -> list[int]:
    """``total`` samples spread evenly over the classes; what a small class cannot take goes to the others."""
    counts = [0] * len(available)
    present = sorted((label for label, have in enumerate(available) if have), key=lambda one: available[one])
    for position, label in enumerate(present):
        share = (total - sum(counts)) // (len(present) - position)
        counts[label] = min(available[label], share)
    return counts


def _blank(spec: DataSpec, parameterization: Parameterization, counts: Sequence[int], soft: bool) -> SyntheticSet:
    decoded = torch.tensor(parameterization.decoded_counts(counts, spec.sample_shape))
    labels = torch.repeat_interleave(torch.arange(len(counts)), decoded)
    if soft:
        labels = torch.nn.functional.one_hot(labels, spec.num_classes).float()
    shapes = parameterization.shapes(counts, spec.sample_shape)
    return SyntheticSet({name: torch.zeros(shape) for name, shape in shapes.items()}, parameterization, labels, spec)


@dataclass(frozen=True)
class BitAllocation:
    """One way to spend bytes on a set that is distilled with values rounded as they will be stored.

    Attributes:
        bits: of each stored value.
        tiles: along each side of a stored image, so that it holds ``tiles ** 2`` samples of as much less resolution;
            1 for whole samples.
    """

    bits: Bits
    tiles: int = 1

    @property
    def parameterization(self) -> Parameterization:
        """How samples are stored."""
        return Pixels() if self.tiles == 1 else Tiles(self.tiles)


_TILES = 2
_FEW_BYTES = 0.5
"""Whole images of eight bits for each class: half way, by ratio, between the two budgets that were measured."""


def allocate_bits(total_bytes: int, real: LabelledData, *, tiles: bool = True) -> BitAllocation:
    """Images as tiles of half the resolution in four bits; in two where a budget holds few images for each class.

    That is what docs/federated.md measured, by DM on Fashion-MNIST. At 2,000 bytes for ten classes, a quarter of a
    whole image of eight bits for each, two bits were 26 to 30 points ahead of four, because more classes got images at
    all. At 8,000 bytes, one such image for each, four and two bits were within two points, and four take half as many
    images; eight were seven points behind. Tiles were ahead of whole images by five to eight points. Feature vectors,
    of which nothing was measured, are stored as they are in eight bits.

    Args:
        total_bytes: of the encoded set.
        real: what is to be distilled; shape and classes count.
        tiles: whether images may be stored at less resolution.
    """
    if not real.is_image:
        return BitAllocation(8)
    present = int((real.class_counts > 0).sum())
    whole = total_bytes / (max(present, 1) * math.prod(real.sample_shape))
    has_tiles = tiles and min(real.sample_shape[1:]) >= _TILES
    return BitAllocation(2 if whole < _FEW_BYTES else 4, _TILES if has_tiles else 1)
