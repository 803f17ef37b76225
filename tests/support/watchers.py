"""Stand-ins for whoever watches a simulation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Recording:
    """A watcher that keeps what it hears."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.notes: list[str] = []

    @contextmanager
    def stage(self, description: str) -> Iterator[Recording]:
        yield self

    def update(self, fraction: float, detail: str = "") -> None:
        self.fractions.append(fraction)

    def note(self, text: str) -> None:
        self.notes.append(text)
