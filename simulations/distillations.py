"""Distillations inside a run: shown step by step, with the time that they will take."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

from fedcl_distill.engine import Callback, Progress, Run, observed_by
from simulations.formats import seconds
from simulations.running.progress import Stage, Watcher

_ESTIMATED_AFTER_SECONDS, _ESTIMATED_AFTER_STEPS = 3.0, 5  # when the rate is steady
_WORTH_TELLING = 60.0  # seconds


def watch_distillations(watcher: Watcher) -> AbstractContextManager[None]:
    """Inside the block, every distillation in this thread is a stage of ``watcher``, whoever starts it."""
    return observed_by(ShownDistillation(watcher, "distilling"))


class ShownDistillation(Callback):
    """Shows a distillation as a stage of its own; what takes long is estimated once, in a line that stays.

    Args:
        watcher: to show it.
        name: of the stage.
    """

    def __init__(self, watcher: Watcher, name: str) -> None:
        self._watcher, self._name = watcher, name
        self._open = ExitStack()
        self._stage: Stage | None = None
        self._told = False

    def on_start(self, run: Run) -> None:
        self._stage = self._open.enter_context(self._watcher.stage(self._name))

    def on_step(self, run: Run) -> None:
        now = run.progress
        assert self._stage is not None
        self._stage.update(now.fraction, steps_text(now))
        if not self._told and now.seconds >= _ESTIMATED_AFTER_SECONDS and now.step >= _ESTIMATED_AFTER_STEPS:
            self._told = True
            if now.remaining_seconds >= _WORTH_TELLING:
                self._watcher.note(estimate(now))

    def on_end(self, run: Run) -> None:
        self._open.close()


def steps_text(now: Progress) -> str:
    """Where a distillation stands, in a few words."""
    return f"step {now.step:,} · {now.rate:.1f}/s · loss {now.loss:.4g}"


def estimate(now: Progress) -> str:
    """What a distillation will take, from what it took so far."""
    steps = round(now.step / now.fraction) if now.fraction else now.step
    return f"about {seconds(now.seconds + now.remaining_seconds)} a distillation ({steps:,} steps at {now.rate:.1f}/s)"
