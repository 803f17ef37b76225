"""The engine: one loop that runs every distillation method, given its four parts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.callbacks import Callback, Checkpoints
from fedcl_distill.engine.fingerprint import fingerprint
from fedcl_distill.engine.loop import Loop
from fedcl_distill.engine.parts import Parts
from fedcl_distill.engine.run import Run
from fedcl_distill.engine.size import AbsentClasses, Size, count_per_class
from fedcl_distill.engine.state import DistillationState
from fedcl_distill.objectives import RealSide
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet


@dataclass(frozen=True)
class Engine(Parts):
    """A distillation method, put together from its :class:`Parts`; itself a :class:`Distiller`."""

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
        """See :meth:`Distiller.distil`. Ctrl-C ends the run early and returns the set as it is by then.

        The latest set is the best so far: every view estimates the loss on a new network, so that a small loss says
        more about the view than about the set.
        """
        started = time.monotonic()
        method = replace(self, augmentation=self.augmentation or augmentation_for(real), budget=budget or self.budget)
        counts = count_per_class(size, real, self.parameterization, absent_classes)
        labels = torch.repeat_interleave(torch.arange(real.num_classes), torch.tensor(counts))
        run = method._open(real, counts, seed, torch.device(device))
        hooks = list(callbacks)
        if checkpoint is not None:
            hooks.append(Checkpoints(checkpoint))
            if os.path.exists(checkpoint):
                run.state.load(checkpoint, run.fingerprint)
        loop = Loop(method, run, RealSide(real, torch.device(device)), labels.to(device), seed)
        interrupted = loop.run(hooks, started)
        return SyntheticSet(
            arrays={name: array.detach().cpu() for name, array in run.state.arrays.items()},
            parameterization=self.parameterization,
            labels=labels,
            class_names=real.class_names,
            normalisation=real.normalisation,
            value_range=real.value_range,
            provenance={**method._origin(real, counts, seed), **run.summary(), "interrupted": interrupted},
        )

    def _open(self, real: LabelledData, counts: list[int], seed: int, device: torch.device) -> Run:
        samples = self.initial.samples(real, counts, seed=derive_seed(seed, "initial"))
        arrays = self.parameterization.start(samples)
        arrays = {name: array.detach().to(device).requires_grad_() for name, array in arrays.items()}
        state = DistillationState(arrays, self.optimiser.build(arrays.values()), step=0, seconds=0.0, losses=[])
        return Run(state, self.budget, lambda: fingerprint(real, self._origin(real, counts, seed)))

    def _origin(self, real: LabelledData, counts: list[int], seed: int) -> dict[str, Any]:
        return {
            **self.settings(),
            "data": real.name,
            "real_counts": real.class_counts.tolist(),
            "synthetic_counts": counts,
            "seed": seed,
        }
