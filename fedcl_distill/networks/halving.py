"""2×2 average pooling as a product with a small matrix, and its adjoint: faster than the layer on a CPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def pool(values: Tensor) -> Tensor:
    """Mean of every 2×2 pixels of (n, channels, height, width); an odd last row or column is left out."""
    count, channels, height, width = values.shape
    rows = values[:, :, : height // 2 * 2].view(count, channels, height // 2, 2, width)
    return (rows[:, :, :, 0] + rows[:, :, :, 1]) @ _halving(width, values.dtype)


def unpool(gradient: Tensor, height: int, width: int) -> Tensor:
    """The gradient of :func:`pool`'s input, (n, channels, height, width), given that of its output."""
    count, channels, half, _ = gradient.shape
    rows = gradient @ _halving(width, gradient.dtype).t()
    whole = rows.unsqueeze(3).expand(count, channels, half, 2, width).reshape(count, channels, 2 * half, width)
    return whole if 2 * half == height else F.pad(whole, (0, 0, 0, height - 2 * half))


@cache
def _halving(width: int, dtype: torch.dtype) -> Tensor:
    """(width, width // 2): a quarter where a column belongs to a pair."""
    pairs = torch.zeros(width, width // 2, dtype=dtype)
    for pair in range(width // 2):
        pairs[2 * pair : 2 * pair + 2, pair] = 0.25
    return pairs
