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
    """Shows preparation and steps of a distillation as stages; what takes long is estimated once, in a line that stays.

    Args:
        watcher: to show them.
        name: of the stage with the steps.
    """

    def __init__(self, watcher: Watcher, name: str) -> None:
        self._watcher, self._name = watcher, name
        self._open, self._shown = ExitStack(), ""
        self._stage: Stage | None = None
        self._told = False

    def on_prepare(self, done: int, total: int, what: str) -> None:
        self._enter(f"preparing {what}").update(done / max(total, 1), f"{done:,} of {total:,}")

    def on_step(self, run: Run) -> None:
        now = run.progress
        self._enter(self._name).update(now.fraction, steps_text(now))
        if not self._told and now.seconds >= _ESTIMATED_AFTER_SECONDS and now.step >= _ESTIMATED_AFTER_STEPS:
            self._told = True
            if now.remaining_seconds >= _WORTH_TELLING:
                self._watcher.note(estimate(now))

    def on_abort(self) -> None:
        self._leave()

    def on_end(self, run: Run) -> None:
        self._leave()

    def _enter(self, name: str) -> Stage:
        if self._stage is None or self._shown != name:
            self._leave()
            self._stage, self._shown = self._open.enter_context(self._watcher.stage(name)), name
        return self._stage

    def _leave(self) -> None:
        self._stage = None
        self._open.close()


def steps_text(now: Progress) -> str:
    """Where a distillation stands, in a few words."""
    return f"step {now.step:,} · {now.rate:.1f}/s · loss {now.loss:.4g}"


def estimate(now: Progress) -> str:
    """What a distillation will take, from what it took so far."""
    steps = round(now.step / now.fraction) if now.fraction else now.step
    return f"about {seconds(now.seconds + now.remaining_seconds)} a distillation ({steps:,} steps at {now.rate:.1f}/s)"
