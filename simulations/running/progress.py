"""How far long work is: stages that a watcher shows, interrupts, distillations step by step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, Protocol

from fedcl_distill.engine import Callback, Progress, Run, observed_by
from simulations.formats import seconds


class Stage(Protocol):
    """One stage under way."""

    def update(self, fraction: float, detail: str = "") -> None:
        """Say that ``fraction`` of the stage, in [0, 1], is done."""
        ...


class Watcher(Protocol):
    """Shows stages; several may be open, one inside the other."""

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        """Open a stage called ``description``; it is closed when the block ends."""
        ...

    def note(self, text: str) -> None:
        """Show one line that stays, such as a result."""
        ...


class Silent:
    """Shows nothing: for tests and for callers that only want the result."""

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        yield self

    def update(self, fraction: float, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass


class InsistentInterrupts:
    """A watcher around another one that raises KeyboardInterrupt whenever it hears of progress after a Ctrl-C.

    Distillers end early on Ctrl-C and return what they have. In a simulation that must not become a result, as if the
    budget had been spent; so the run is interrupted again at the next thing it reports, until it ends. Use it in a
    ``with`` block, in the main thread. ``signal_number`` is that of another signal that must do what Ctrl-C does.
    """

    def __init__(self, watcher: Watcher, signal_number: signal.Signals = signal.SIGINT) -> None:
        self._watcher = watcher
        self._signal = signal_number
        self._happened = False
        self._before: Any = None

    def __enter__(self) -> InsistentInterrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(self._signal, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(self._signal, self._before)

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        self._check()
        with self._watcher.stage(description) as stage:
            yield _CheckedStage(self, stage)

    def note(self, text: str) -> None:
        self._check()
        self._watcher.note(text)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._happened = True
        raise KeyboardInterrupt

    def _check(self) -> None:
        if self._happened:
            raise KeyboardInterrupt


class _CheckedStage:
    def __init__(self, interrupts: InsistentInterrupts, stage: Stage) -> None:
        self._interrupts, self._stage = interrupts, stage

    def update(self, fraction: float, detail: str = "") -> None:
        self._interrupts._check()
        self._stage.update(fraction, detail)


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
