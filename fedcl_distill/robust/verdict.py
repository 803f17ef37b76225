"""What is kept of the sets of many parties, and what is dropped for which reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedcl_distill.synthetic import SyntheticSet


@dataclass(frozen=True)
class Drop:
    """Samples of one set that are not used.

    Attributes:
        label: their class; None where the whole set is dropped.
        samples: how many.
        reason: why, in one line.
    """

    label: int | None
    samples: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """On one set.

    Attributes:
        kept: bool (n,): which of its decoded samples are used.
        drops: what is not used, and why.
    """

    kept: Tensor
    drops: tuple[Drop, ...] = ()


class Judge(Protocol):
    """Says which samples of many sets are used."""

    def judge(self, sets: Sequence[SyntheticSet], *, seed: int, device: str = "cpu") -> list[Verdict]:
        """One verdict for each of ``sets``, which have the same classes, shape and normalisation."""
        ...
