"""The loop itself: a view now and then, a step each time, until the budget is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.engine.as_sent import as_sent
from fedcl_distill.engine.callbacks import Callback
from fedcl_distill.engine.parts import Parts
from fedcl_distill.engine.run import Run
from fedcl_distill.errors import DivergenceError
from fedcl_distill.labels import on_simplex
from fedcl_distill.objectives import View
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.sides import RealSide, SyntheticSide

_LARGEST_INPUT = 1e6  # in deviations of the real data; norms inside a network would hide that samples ran away


@dataclass
class Loop:
    """One run of a method on one data set.

    Attributes:
        classes: int64 (n,): the class of each decoded sample.
        starts: float32 (n, …): what each was meant to be before the first step.
    """

    method: Parts
    run_: Run
    real: RealSide
    classes: Tensor
    starts: Tensor
    seed: int

    def run(self, hooks: Sequence[Callback], started: float) -> bool:
        """Step until the budget is spent; True if the user interrupted it. Its clock began at ``started``."""
        run, state, before = self.run_, self.run_.state, self.run_.state.seconds
        view, target = None, None
        for hook in hooks:
            hook.on_start(run)
        try:
            while run.progress.fraction < 1:
                index, within = divmod(state.step, self.method.steps_per_view)
                if view is None or within == 0:
                    view = self._view(index)
                    target = self.method.objective.target(view, self.real)
                self._step(view, target)
                if within == self.method.steps_per_view - 1:
                    with torch.no_grad():
                        side = self._side().detached()
                    state.supply.learn(index, view.seed, side)
                state.seconds = before + self.method.budget.now() - started
                if self.method.average_from < 1 and run.progress.fraction >= self.method.average_from:
                    state.count_in()
                for hook in hooks:
                    hook.on_step(run)
        except KeyboardInterrupt:
            return True
        finally:
            for hook in hooks:
                hook.on_end(run)
        return False

    def _view(self, index: int) -> View:
        """The view number ``index``: the same one whenever it is asked for, so that a resumed run goes on exactly."""
        seed = derive_seed(self.seed, "view", index)
        data = self.real.data
        drawn = self.run_.state.supply.draw(index, seed)
        augmentation = self.method.augmentation or NoAugmentation()
        draw = augmentation.draw(data.num_classes, data.sample_shape, generator_for(seed, "augmentation"))
        return View(drawn.network, draw, seed, drawn.goal, index)

    def _side(self) -> SyntheticSide:
        state = self.run_.state
        decoded = self.method.parameterization.decode(as_sent(state.arrays, self.method.bits))
        return SyntheticSide(decoded, self.classes, state.labels, state.learned, self.starts)

    def _step(self, view: View, target: Any) -> None:
        method, state = self.method, self.run_.state
        state.optimiser.zero_grad(set_to_none=True)
        value, size = self._differentiate(view, target)
        if not (abs(value) < math.inf and size < _LARGEST_INPUT):
            raise DivergenceError(
                f"{method.name}: loss {value:g}, largest input {size:g} at step {state.step + 1}; "
                "try a smaller learning rate"
            )
        method.optimiser.step(state.optimiser, self.run_.progress.fraction)
        self._project()
        state.losses.append(value)
        state.step += 1

    def _differentiate(self, view: View, target: Any) -> tuple[float, float]:
        """Loss and largest absolute input; the gradient goes through decoded samples into the stored arrays."""
        side = self._side()
        decoded = side.inputs
        side = replace(side, inputs=decoded.detach().requires_grad_())
        value = 0.0
        for loss in self.method.objective.losses(view, target, side):
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        if side.inputs.grad is not None and decoded.requires_grad:
            decoded.backward(side.inputs.grad)  # type: ignore[no-untyped-call]
        return value, float(decoded.detach().abs().max())

    @torch.no_grad()
    def _project(self) -> None:
        """Back to where values are allowed: pixels into their range, learned labels onto the simplex."""
        state = self.run_.state
        if state.labels.requires_grad:
            state.labels.copy_(on_simplex(state.labels))
        if self.method.clamp:
            for name in self.method.parameterization.pixel_arrays:
                self._clamp(state.arrays[name])

    def _clamp(self, array: Tensor) -> None:
        data = self.real.data
        corners = torch.tensor(data.value_range)[:, None].expand(2, data.sample_shape[0])
        corners = data.normalisation.apply(corners).to(self.real.device)
        shape = (1, -1) + (1,) * (array.ndim - 2)
        array.clamp_(corners[0].view(shape), corners[1].view(shape))
