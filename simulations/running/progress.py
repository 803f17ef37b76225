"""What a long simulation tells whoever waits for it, and Ctrl-C that gets through."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol


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
    ``with`` block, in the main thread. ``signal_number`` is that of another signal that shall do what Ctrl-C does.
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
