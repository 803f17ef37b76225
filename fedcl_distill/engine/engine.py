"""The engine: one loop that runs every distillation method, given its four parts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.callbacks import Callback, Checkpoints
from fedcl_distill.engine.fingerprint import fingerprint
from fedcl_distill.engine.initial import Initial
from fedcl_distill.engine.loop import Loop
from fedcl_distill.engine.optimiser import SGD
from fedcl_distill.engine.run import Run
from fedcl_distill.engine.size import AbsentClasses, Size, count_per_class
from fedcl_distill.engine.state import DistillationState
from fedcl_distill.networks import NetworkSource
from fedcl_distill.objectives import Objective, RealSide
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet


@dataclass(frozen=True)
class Engine:
    """A distillation method, put together from its parts; itself a :class:`Distiller`.

    Attributes:
        name: of the method.
        objective: what must agree between real and synthetic.
        networks: which networks the objective looks through.
        initial: what the synthetic samples are before the first step.
        budget: the method's own, where a call gives none.
        augmentation: what is done alike to both sides; None takes what suits the data.
        parameterization: how the synthetic data are stored and decoded.
        optimiser: of the stored arrays.
        steps_per_view: synthetic steps for each network, augmentation and real batch; the real side, which costs
            most, is computed once a view. 1 is the published loop.
        clamp: keep stored values inside the real data's value range.
    """

    name: str
    objective: Objective[Any]
    networks: NetworkSource
    initial: Initial
    budget: Budget
    augmentation: Augmentation | None = None
    parameterization: Parameterization = field(default_factory=Pixels)
    optimiser: SGD = field(default_factory=SGD)
    steps_per_view: int = 1
    clamp: bool = False

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

    def settings(self) -> dict[str, Any]:
        """Every setting of the method, as JSON values."""
        return {
            "method": self.name,
            **self.objective.settings(),
            **self.networks.settings(),
            **({} if self.augmentation is None else self.augmentation.settings()),
            "parameterization": self.parameterization.name,
            **self.parameterization.settings(),
            **self.initial.settings(),
            **self.optimiser.settings(),
            "steps_per_view": self.steps_per_view,
            "clamp": self.clamp,
        }

    def _open(self, real: LabelledData, counts: list[int], seed: int, device: torch.device) -> Run:
        samples = self.initial.samples(real, counts, seed=derive_seed(seed, "initial"))
        arrays = self.parameterization.start(samples)
        arrays = {name: array.detach().to(device).requires_grad_() for name, array in arrays.items()}
        state = DistillationState(arrays, self.optimiser.build(arrays.values()), step=0, seconds=0.0, losses=[])
        return Run(state, self.budget, fingerprint(real, self._origin(real, counts, seed)))

    def _origin(self, real: LabelledData, counts: list[int], seed: int) -> dict[str, Any]:
        return {
            **self.settings(),
            "data": real.name,
            "real_counts": real.class_counts.tolist(),
            "synthetic_counts": counts,
            "seed": seed,
        }
