"""The loop itself: a view now and then, a step each time, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.engine.callbacks import Callback
from fedcl_distill.engine.parts import Parts
from fedcl_distill.engine.run import Run
from fedcl_distill.errors import DivergenceError
from fedcl_distill.objectives import RealSide, View
from fedcl_distill.seeding import derive_seed, generator_for


@dataclass
class Loop:
    """One run of a method on one data set."""

    method: Parts
    run_: Run
    real: RealSide
    labels: Tensor
    seed: int

    def run(self, hooks: Sequence[Callback], started: float) -> bool:
        """Step until the budget is spent; True if the user interrupted it. ``started`` is a monotonic time."""
        run, state, before = self.run_, self.run_.state, self.run_.state.seconds
        view, target = None, None
        for hook in hooks:
            hook.on_start(run)
        try:
            while run.progress.fraction < 1:
                if view is None or state.step % self.method.steps_per_view == 0:
                    view = self._view(state.step // self.method.steps_per_view)
                    target = self.method.objective.target(view, self.real)
                self._step(view, target)
                state.seconds = before + time.monotonic() - started
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
        network = self.method.networks.draw(data, seed=seed, device=self.real.device)
        augmentation = self.method.augmentation or NoAugmentation()
        draw = augmentation.draw(data.num_classes, data.sample_shape, generator_for(seed, "augmentation"))
        return View(network, draw, seed)

    def _step(self, view: View, target: Any) -> None:
        method, state = self.method, self.run_.state
        method.optimiser.schedule(state.optimiser, self.run_.progress.fraction)
        state.optimiser.zero_grad(set_to_none=True)
        value = self._differentiate(view, target, method.parameterization.decode(state.arrays))
        if not abs(value) < float("inf"):
            raise DivergenceError(f"{method.name}: loss {value} at step {state.step + 1}; try a smaller learning rate")
        state.optimiser.step()
        if method.clamp:
            self._clamp(state.arrays)
        state.losses.append(value)
        state.step += 1

    def _differentiate(self, view: View, target: Any, decoded: Tensor) -> float:
        """The loss; its gradient goes through ``decoded`` into the stored arrays, addend by addend up to there."""
        inputs = decoded.detach().requires_grad_()
        value = 0.0
        for loss in self.method.objective.losses(view, target, inputs, self.labels):
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        decoded.backward(inputs.grad)  # type: ignore[no-untyped-call]
        return value

    @torch.no_grad()
    def _clamp(self, arrays: dict[str, Tensor]) -> None:
        data = self.real.data
        corners = torch.tensor(data.value_range)[:, None].expand(2, data.sample_shape[0])
        corners = data.normalisation.apply(corners).to(self.real.device)
        for array in arrays.values():
            shape = (1, -1) + (1,) * (array.ndim - 2)
            array.clamp_(corners[0].view(shape), corners[1].view(shape))
