"""A core set with the call of a distiller, so that both fit wherever one does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.callbacks import Callback
from fedcl_distill.engine.size import AbsentClasses, Size, count_per_class
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.selection import Criterion, select
from fedcl_distill.synthetic import SyntheticSet


@dataclass(frozen=True)
class CoreSet:
    """Chooses real samples by a criterion; itself a :class:`Distiller`."""

    criterion: Criterion

    @property
    def name(self) -> str:
        return self.criterion.name

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
        """See :meth:`Distiller.distil`; the result holds real samples, which no one should call private."""
        started = time.monotonic()
        counts = count_per_class(size, real, Pixels(), absent_classes)
        chosen = select(real, counts, self.criterion, seed=seed)
        return SyntheticSet.of_real(
            real.subset(chosen),
            provenance={
                "method": self.name,
                "data": real.name,
                "real_counts": real.class_counts.tolist(),
                "synthetic_counts": counts,
                "seed": seed,
                "seconds": round(time.monotonic() - started, 3),
                "holds_real_samples": True,
            },
        )
