"""Progress for whoever sits before the terminal, and for whoever reads a log afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from simulations.formats import seconds
from simulations.running.progress import Stage, Watcher

_SECONDS_BETWEEN_LINES = 30.0
_SHOWN_DEPTH = 2  # stages further inside get a line in a log only where they last


def open_console() -> Console:
    """Standard output; 120 columns wide where no terminal says how wide it is, so that tables keep their words."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def watcher_for(console: Console) -> Watcher:
    """Bars on a terminal, plain lines elsewhere."""
    return RichWatcher(console) if console.is_terminal else PlainWatcher(console)


class RichWatcher:
    """Shows every open stage as a line: what it is, how far, the time that is left, a bar, and its detail."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open: list[TaskID] = []
        self._bars = Progress(
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=3)
            ),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("[dim]left"),
            TimeRemainingColumn(compact=True),
            BarColumn(bar_width=10),
            TextColumn(
                "{task.fields[detail]}",
                style="dim",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=4),
            ),
            console=console,
            transient=True,
            expand=True,
        )

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        if not self._open:
            self._bars.start()
        task = self._bars.add_task("  " * len(self._open) + description, total=1.0, detail="")
        self._open.append(task)
        try:
            yield _Bar(self._bars, task)
        finally:
            self._open.remove(task)
            self._bars.remove_task(task)
            if not self._open:
                self._bars.stop()

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)  # texts come from results and paths


class _Bar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def update(self, fraction: float, detail: str = "") -> None:
        self._bars.update(self._task, completed=min(1.0, max(0.0, fraction)), detail=detail)


class PlainWatcher:
    """Writes a line when a stage starts, one now and then while it lasts, and one when all have ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._depth = 0

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        indent, started = "  " * self._depth, time.monotonic()
        if self._depth < _SHOWN_DEPTH:
            self._print(f"{indent}{description} …")
        self._depth += 1
        try:
            yield _Lines(self, f"{indent}{description}")
        finally:
            self._depth -= 1
        if self._depth == 0:
            self._print(f"{description}: done in {seconds(time.monotonic() - started)}")

    def note(self, text: str) -> None:
        self._print("  " * self._depth + text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Lines:
    def __init__(self, watcher: PlainWatcher, description: str) -> None:
        self._watcher, self._description = watcher, description
        self._spoke = time.monotonic()

    def update(self, fraction: float, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._spoke < _SECONDS_BETWEEN_LINES:
            return
        self._spoke = now
        self._watcher._print(f"{self._description}: {100 * fraction:.0f} %" + (f", {detail}" if detail else ""))
