"""How probable a count is."""

from __future__ import annotations

import torch
from torch import Tensor


def chance_of_at_most(count: int, chances: Tensor) -> float:
    """The probability that at most ``count`` of independent events happen; ``chances`` are theirs, float64 (n,).

    The distribution function of Poisson's binomial distribution, exactly, by adding one event after the other.
    """
    found = torch.zeros(len(chances) + 1, dtype=torch.float64)
    found[0] = 1
    for chance in chances.tolist():
        found[1:] = found[1:] * (1 - chance) + found[:-1].clone() * chance
        found[0] *= 1 - chance
    return float(found[: count + 1].sum())
