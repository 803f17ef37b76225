"""A core set with the call of a distiller, so that both fit wherever one does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext, as_device
from fedcl_distill.data.dataset import DataLike, as_labelled
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.loop import Callback
from fedcl_distill.engine.size import AbsentClasses, Size, count_per_class
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labelling, Labels
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.registry import describe
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Criterion, select
from fedcl_distill.settings import checked, settings
from fedcl_distill.synthetic import SyntheticSet


@settings
class CoreSet:
    """Chooses real samples by a criterion; itself a :class:`Distiller`.

    Attributes:
        criterion: which samples stand best for their class.
        labels: what they are labelled with: their class, or what a teacher says.

    Raises:
        SettingsError: on construction, if labels are to be learned: a selection has no steps to learn in.
    """

    criterion: Criterion
    labels: Labels = field(default_factory=HardLabels)

    def __post_init__(self) -> None:
        if self.labels.learning_rate is not None:
            raise SettingsError(f"{self.name} selects samples in no steps, in which labels could be learned")

    @property
    def name(self) -> str:
        return self.criterion.name

    @property
    def parameterization(self) -> Pixels:
        return Pixels()

    def settings(self) -> dict[str, Any]:
        """The parts in their plain form, as :meth:`MethodSpec.settings` has them."""
        return {"method": self.name, "criterion": describe(self.criterion), "labels": describe(self.labels)}

    def with_bits(self, bits: int) -> CoreSet:
        """Itself: there are no steps that could mind how samples are rounded."""
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
        """See :meth:`Distiller.distil`; the result holds real samples, which no one should call private."""
        started, real = time.monotonic(), as_labelled(real)
        counts = count_per_class(size, real, Pixels(), absent_classes, soft_labels=self.labels.soft)
        chosen = select(real, counts, self.criterion, seed=seed)
        selection = SyntheticSet.of_real(
            real.subset(chosen),
            provenance={
                **self.settings(),
                "data": real.name,
                "real_counts": real.class_counts.tolist(),
                "synthetic_counts": counts,
                "seed": seed,
                "seconds": round(time.monotonic() - started, 3),
                "holds_real_samples": True,
            },
        )
        labelling = self.labels.open(SetupContext(real, derive_seed(seed, "labels"), as_device(device)))
        return replace(selection, labels=_relabelled(labelling, selection, as_device(device)))


@torch.no_grad()
def _relabelled(labelling: Labelling, selection: SyntheticSet, device: torch.device) -> Tensor:
    inputs = selection.inputs().to(device)
    labels = labelling.initial(inputs, selection.labels.to(device))
    return labelling.final(inputs, labels).cpu()
