"""Settings of secure aggregation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcl_distill.errors import SettingsError

FEWEST = 3  # nodes: of two, each knows the other's part from the sum


@dataclass(frozen=True)
class SecureOptions:
    """Whether and how sums are added so that the server sees no single node's.

    Attributes:
        secure: whether they are.
        threshold: fraction of the nodes that take part, in (1/2, 1], that must stay to the end; and that would have to
            work together with the server to learn what a single node sent.
        max_samples: the most samples of one class that a node may hold: a public bound, for sums in fixed point.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    secure: bool = False
    threshold: float = 2 / 3
    max_samples: int = 10_000

    def __post_init__(self) -> None:
        if not 0.5 < self.threshold <= 1:
            raise SettingsError(f"threshold must be in (1/2, 1], got {self.threshold}")
        if self.max_samples < 1:
            raise SettingsError(f"max_samples must be at least 1, got {self.max_samples}")

    def threshold_of(self, nodes: int) -> int:
        """Of so many nodes; always more than half of them."""
        return max(nodes // 2 + 1, math.ceil(self.threshold * nodes - 1e-9))
