"""What may happen beside the engine's loop: progress, checkpoints, recording."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from fedcl_distill.engine.run import Progress, Run
from fedcl_distill.errors import DependencyError
from fedcl_distill.files import remove


class Callback:
    """Hooks of a run; each does nothing unless overridden."""

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was loaded."""

    def on_step(self, run: Run) -> None:
        """After every step."""

    def on_end(self, run: Run) -> None:
        """After the last step, also when it was interrupted or failed."""


class OnProgress(Callback):
    """Calls a function with the :class:`Progress` of every step."""

    def __init__(self, report: Callable[[Progress], Any]) -> None:
        self._report = report

    def on_step(self, run: Run) -> None:
        self._report(run.progress)


class Checkpoints(Callback):
    """Saves the state every so many seconds, and at the end of an unfinished run; removes it when the run is done."""

    def __init__(self, path: str | os.PathLike[str], every_seconds: float = 30.0) -> None:
        self._path, self._every = path, every_seconds
        self._saved_at = 0.0

    def on_start(self, run: Run) -> None:
        self._saved_at = time.monotonic()

    def on_step(self, run: Run) -> None:
        if time.monotonic() - self._saved_at >= self._every:
            self._save(run)

    def on_end(self, run: Run) -> None:
        if run.progress.fraction < 1:
            self._save(run)
        else:
            remove(self._path)

    def _save(self, run: Run) -> None:
        run.state.save(self._path, run.fingerprint)
        self._saved_at = time.monotonic()


class ProgressBar(Callback):
    """A bar with steps, rate, loss and remaining time, drawn by rich.

    Raises:
        DependencyError: rich is not installed.
    """

    def __init__(self, description: str = "distilling") -> None:
        try:
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
        except ImportError as error:
            raise DependencyError("the progress bar needs rich: pip install 'fedcl-distill[report]'") from error
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn())
        self._task = self._bar.add_task(description, total=1.0, detail="")

    def on_start(self, run: Run) -> None:
        self._bar.start()

    def on_step(self, run: Run) -> None:
        now = run.progress
        detail = f"step {now.step} · {now.rate:.1f}/s · loss {now.loss:.4g}"
        self._bar.update(self._task, completed=now.fraction, detail=detail)

    def on_end(self, run: Run) -> None:
        self._bar.stop()
