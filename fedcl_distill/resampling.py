"""Weighted samples as plain ones: how those that count for more are seen more often."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError

_MARGIN = 1e-6  # rounding of the sums must not move a point to a neighbour


def check_weights(weights: Tensor, count: int) -> None:
    """Return if ``weights`` are ``count`` finite numbers above 0.

    Raises:
        SettingsError: they are not.
    """
    if weights.shape != (count,) or not weights.is_floating_point():
        raise SettingsError(
            f"{count} samples need float weights of shape ({count},), got {weights.dtype} {tuple(weights.shape)}"
        )
    if not (torch.isfinite(weights).all() and (weights > 0).all()):
        raise SettingsError("weights must be finite and positive")


def systematic_resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """int64 (n,), ascending: as many positions as there are weights, each as often as its weight says.

    Systematic resampling (Madow 1949): n evenly spaced points from one random start on the line of summed weights. A
    position of share p comes ⌊n·p⌋ or ⌈n·p⌉ times, n·p times in the mean; equal weights give every position once.

    Args:
        weights: float (n,), positive; only ratios count.
    """
    count = len(weights)
    ends = weights.double().cumsum(dim=0)
    start = torch.rand((), generator=generator, dtype=torch.float64).clamp(_MARGIN, 1 - _MARGIN)
    points = (torch.arange(count, dtype=torch.float64) + start) * (ends[-1] / count)
    return torch.searchsorted(ends, points, right=True).clamp(max=count - 1)
