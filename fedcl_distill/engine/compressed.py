"""Real samples behind an image codec: what distilled ones must beat at equal bytes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import LabelledData, as_labelled
from fedcl_distill.engine.loop import Callback
from fedcl_distill.engine.size import AbsentClasses, Budget, ByteBudget, Size, bytes_of_counts, count_per_class, spread
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.parameterizations import DCT, Pixels
from fedcl_distill.registry import describe
from fedcl_distill.selection import Criterion, Random, select
from fedcl_distill.settings import Count, Positive, checked, settings
from fedcl_distill.synthetic import SyntheticSet, encoded_bytes
from fedcl_distill.synthetic.quantise import Bits

_STEPS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_DEAD = 0.4  # a coefficient rounds up from 0.6 steps on: zeros are cheap
_BITS: Bits = 8
_FEWEST = 16
_GUESSES = 12
_FREQUENCIES = 2.5  # for each byte of an image: finer steps tell of higher frequencies


def bytes_for_an_image(bytes_of_class: float) -> float:
    """How many bytes each image of a class gets, of so many for all of them: more images and better ones alike.

    A rule measured on held-out training data of MNIST, see docs/bytes.md.
    """
    return 8.0 * math.pow(bytes_of_class, 0.25)


@settings
class CompressedCoreSet:
    """Chooses real samples as a core set does, and stores them as an image codec would; itself a :class:`Distiller`.

    Images are cosine transformed (:class:`~fedcl_distill.parameterizations.DCT`), rounded with a dead zone and, in the
    payload, entropy-coded. They fill a budget in true bytes: the finest steps at which each image takes about
    ``bytes_per_image``, then as many images as fit. A size in samples a class stands for the bytes that so many would
    take as pixels of eight bits: many more come out of it.

    Attributes:
        criterion: which samples stand best for their class.
        bytes_per_image: of the payload; None follows :func:`bytes_for_an_image`.
        block: side of the blocks that are transformed; None transforms whole images.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    criterion: Criterion = field(default_factory=Random)
    bytes_per_image: Positive | None = None
    block: Count | None = None
    labels: Labels = field(default_factory=HardLabels, init=False)

    @property
    def name(self) -> str:
        return "compressed"

    @property
    def parameterization(self) -> DCT:
        """How samples are stored; of each channel at least so many frequencies."""
        return DCT(_FEWEST, block=self.block)

    def settings(self) -> dict[str, Any]:
        """The parts in their plain form, as :meth:`MethodSpec.settings` has them."""
        told = {"bytes_per_image": self.bytes_per_image, "block": self.block}
        return {"method": self.name, "criterion": describe(self.criterion), **told}

    def with_bits(self, bits: int) -> CompressedCoreSet:
        """Itself: what it stores are whole numbers already."""
        return self

    @checked
    def distil(
        self,
        real: DataLike,
        size: Size,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        """See :meth:`Distiller.distil`; the result holds real samples, which no one should call private.

        Raises:
            SettingsError: samples are no images, or not even one fits.
        """
        started, real = time.monotonic(), as_labelled(real)
        if not real.is_image:
            raise SettingsError("compressed: only images are stored by cosines; for feature vectors take a core set")
        room, shares = _room(real, size, absent_classes)
        target = self.bytes_per_image or bytes_for_an_image(room.total_bytes / sum(share > 0 for share in shares))
        most = _counts(shares, real, 2 * max(int(room.total_bytes / target), 1) + real.num_classes)
        chosen = real.subset(select(real, most, self.criterion, seed=seed))
        fitting, step = _Filling(chosen, shares, room, target, self.block).best()
        provenance = {
            **self.settings(),
            "step": step,
            "data": real.name,
            "real_counts": real.class_counts.tolist(),
            "synthetic_counts": fitting.class_counts.tolist(),
            "seed": seed,
            "seconds": round(time.monotonic() - started, 3),
            "holds_real_samples": True,
        }
        return replace(fitting, provenance=provenance)


def _room(real: LabelledData, size: Size, absent_classes: AbsentClasses) -> tuple[ByteBudget, list[int]]:
    """The bytes to fill, and the share of each class in them."""
    if isinstance(size, ByteBudget):
        if absent_classes == "error":
            real.require_every_class()
        return size, [int(count > 0) for count in real.class_counts.tolist()]
    counts = count_per_class(size, real, Pixels(), absent_classes)
    return ByteBudget(bytes_of_counts(counts, real, _BITS), _BITS), counts


def _counts(shares: Sequence[int], real: LabelledData, total: int) -> list[int]:
    """About ``total`` samples in these ``shares``, no more of a class than there are."""
    available = real.class_counts.tolist()
    if len({share for share in shares if share}) == 1:
        return spread(total, [have if share else 0 for share, have in zip(shares, available, strict=True)])
    whole = sum(shares)
    return [min(have, total * share // whole) for share, have in zip(shares, available, strict=True)]


@dataclass
class _Filling:
    """Finds how many of ``chosen``, best first in each class, fit into ``room`` at which step."""

    chosen: LabelledData
    shares: Sequence[int]
    room: ByteBudget
    target: float
    block: int | None

    def best(self) -> tuple[SyntheticSet, float]:
        """The finest step at which ``target`` bytes an image suffice, and as many images as then fit."""
        wanted = max(int(self.room.total_bytes / self.target), 1)
        fine, coarse = 0, len(_STEPS) - 1
        while fine < coarse:
            middle = (fine + coarse) // 2
            if self._size(self.coded(wanted, _STEPS[middle])) <= self.room.total_bytes:
                coarse = middle
            else:
                fine = middle + 1
        return self._as_many(wanted, _STEPS[fine]), _STEPS[fine]

    def _as_many(self, count: int, step: float) -> SyntheticSet:
        """The largest number that is seen to fit, where a few guesses go by how large an image was the time before."""
        low, high, best = 0, len(self.chosen), None
        for _ in range(_GUESSES):
            count = min(max(count, low + 1), high)
            if low >= high:
                break
            made = self.coded(count, step)
            size = self._size(made)
            if size <= self.room.total_bytes:
                low, best = count, made
            else:
                high = count - 1
            count = int(count * self.room.total_bytes / size)
        if best is None or not len(best):
            raise SettingsError(f"{self.room.total_bytes} bytes hold no compressed image")
        return best

    def _size(self, made: SyntheticSet) -> int:
        return encoded_bytes(made, self.room.bits, provenance=False)

    def coded(self, total: int, step: float) -> SyntheticSet:
        """The first ``total`` samples, in whole numbers of steps."""
        counts = _counts(self.shares, self.chosen, total)
        rows = [self.chosen.indices_of(label)[:count] for label, count in enumerate(counts)]
        some = self.chosen.subset(torch.cat(rows))
        shape = some.sample_shape
        blocks = 1 if self.block is None else -(-shape[1] // self.block) * -(-shape[2] // self.block)
        how = DCT(max(_FEWEST, int(_FREQUENCIES * self.target / blocks)), step, self.block)
        arrays = how.transform(some.inputs())
        arrays["coefficients"] = _dead_zone(arrays["coefficients"], self.room.bits)
        return SyntheticSet(arrays, how, some.labels, some.spec)


def _dead_zone(values: Tensor, bits: int) -> Tensor:
    """Whole numbers nearer to zero than ``values`` are; no more different ones than codes of so many ``bits`` tell."""
    whole = values.sign() * (values.abs() + _DEAD).floor()
    most = 2 ** (min(bits, 16) - 1)
    return whole.clamp(-most, most - 1) + 0.0
