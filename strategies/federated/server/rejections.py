"""Nodes whose answer was not used, and why."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

_MAX_REASON = 300  # characters: the reason may have been written by the node
_MAX_READ = 100_000  # characters from the end of what a node says
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Rejection:
    """One answer that was not used, or the part of one that a defence dropped.

    Attributes:
        server_round: of the question.
        node: Flower's node id.
        partition: which partition the node says it holds, None where it never said.
        reason: one line of at most 300 characters.
        label: the class whose samples were dropped, where the rest of the answer was used.
        samples: how many samples were dropped by a defence; None where the answer was never read as far.
    """

    server_round: int
    node: int
    partition: int | None
    reason: str
    label: int | None = None
    samples: int | None = None

    def __str__(self) -> str:
        partition = "" if self.partition is None else f" (partition {self.partition})"
        return f"node {self.node}{partition}: {self.reason}"

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts by round, partition (an unknown one last), node."""
        partition = float("inf") if self.partition is None else self.partition
        return self.server_round, partition, self.node

    def as_record(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def one_line(text: str) -> str:
    """The last line of ``text`` (where a traceback names its error), plain and clipped."""
    lines = [line.strip() for line in _ANSI.sub("", text[-_MAX_READ:]).splitlines() if line.strip()]
    line = "".join(c if c.isprintable() else "?" for c in lines[-1]) if lines else "no reason given"
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
