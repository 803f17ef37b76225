"""What a long simulation tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


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
