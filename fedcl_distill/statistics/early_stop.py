"""When to stop: views that are held out tell by when the samples fit the others all too well."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedcl_distill.engine import Callback, Run
from fedcl_distill.parameterizations import Parameterization
from fedcl_distill.statistics.matching import StatisticsMatching


@dataclass
class HeldOutViews(Callback):
    """Ends a run once the mismatch in held-out views no longer falls, and goes back to where it was least.

    That needs no data beside the statistics.

    Attributes:
        objective: whose last views are held out.
        parameterization: decodes the samples.
        classes: int64 (n,): of the decoded samples.
        every: steps from one check to the next.
        patience: so many checks in a row may find nothing better.
        mismatches: what the checks found, in turn.
    """

    objective: StatisticsMatching
    parameterization: Parameterization
    classes: Tensor
    every: int = 100
    patience: int = 3
    mismatches: list[float] = field(default_factory=list)
    _best: dict[str, Tensor] = field(default_factory=dict)

    def on_step(self, run: Run) -> None:
        if run.state.step % self.every:
            return
        self.mismatches.append(self._mismatch(run))
        best = self.mismatches.index(min(self.mismatches))
        if best == len(self.mismatches) - 1:
            self._best = {name: array.detach().clone() for name, array in run.state.arrays.items()}
        run.ended = run.ended or len(self.mismatches) - 1 - best >= self.patience

    @torch.no_grad()
    def on_end(self, run: Run) -> None:
        if self._best and self._mismatch(run) > min(self.mismatches):
            for name, array in run.state.arrays.items():
                array.copy_(self._best[name])

    @torch.no_grad()
    def _mismatch(self, run: Run) -> float:
        inputs = self.parameterization.decode(run.state.arrays)
        classes = self.classes.to(inputs.device)
        return statistics.fmean(
            self.objective.mismatch(view, inputs, classes) for view in self.objective.held_out_views
        )
