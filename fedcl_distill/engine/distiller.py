"""The one call that every distiller and every core-set selection answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.callbacks import Callback
from fedcl_distill.engine.size import AbsentClasses, Size
from fedcl_distill.labels import Labels
from fedcl_distill.parameterizations import Parameterization
from fedcl_distill.synthetic import SyntheticSet


def finished(synthetic: SyntheticSet) -> SyntheticSet:
    """``synthetic``, unless Ctrl-C ended its distillation early.

    Distillers then return what they have. Who must not pass that off as the whole, such as a result, a client's answer
    or a memory, asks here.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if synthetic.provenance.get("interrupted"):
        raise KeyboardInterrupt
    return synthetic


class Distiller(Protocol):
    """Turns real data into a small set that stands for them."""

    @property
    def name(self) -> str:
        """What provenance, tables and plots call it."""
        ...

    @property
    def parameterization(self) -> Parameterization:
        """How what it returns is stored."""
        ...

    @property
    def labels(self) -> Labels:
        """What it labels samples with."""
        ...

    def distil(
        self,
        real: LabelledData,
        size: Size,
        *,
        seed: int,
        budget: Budget | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        """Distil ``real``.

        Args:
            real: the data.
            size: samples a class, a count for every class, or a :class:`ByteBudget`.
            seed: fixes the result (same machine, device and thread count, budget in steps).
            budget: steps or seconds; None takes the method's own. A selection needs none and ignores it.
            device: where to compute; the result is on the CPU.
            callbacks: progress, recording and the like.
            checkpoint: file to continue from if it is there and to save to now and then; removed when done.
            absent_classes: what to do about a class without samples: "error", or "skip" it (clients, experiences).

        Raises:
            DataError: a class without samples, or more.
            SettingsError: a size, or a part of the method, that does not fit the data.
            DivergenceError: the loss stopped being finite.
            CheckpointError: ``checkpoint`` is damaged or belongs to another run.
        """
        ...
