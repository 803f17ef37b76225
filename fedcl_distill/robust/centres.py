"""Centres of weighted points: the mean, and three that a minority of points cannot carry away.

All take points float (n, d), n ≥ 1, and weights float (n,), not negative, one at least positive, and return float (d,).
A point of weight 0 has no say. The share of the weight that may lie without moving the centre arbitrarily far (the
breakdown point, Donoho and Huber 1983) is 0 for the mean, the trimmed share for the trimmed mean, and one half for both
medians.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Centre = Callable[[Tensor, Tensor], Tensor]

_TRIM = 0.3
_ITERATIONS = 200
_TOLERANCE = 1e-6  # relative movement at which iterations end
_TIE = 1e-9  # relative: rounding of summed weights must not decide on which side of one half they are


def weighted_mean(points: Tensor, weights: Tensor) -> Tensor:
    """Σ wᵢ xᵢ / Σ wᵢ."""
    return weights @ points / weights.sum()


def geometric_median(points: Tensor, weights: Tensor) -> Tensor:
    """The point of least Σ wᵢ ‖x − xᵢ‖.

    Where one of the points is it (Kuhn 1973), it is found at once; else by Weiszfeld's iteration (1937), in the form of
    Vardi and Zhang (2000), which does not get stuck at a point. Where every place of a line is a median, as between two
    points of equal weight, it is one near the mean.
    """
    points, weights = points[weights > 0], weights[weights > 0]
    centre = weighted_mean(points, weights)
    spread = (points - centre).norm(dim=1).max()
    if spread == 0:
        return centre
    best = _point_that_is_median(points, weights)
    if best is not None:
        return best
    for _ in range(_ITERATIONS):
        moved = _weiszfeld_step(points, weights, centre, smallest=_TOLERANCE * spread)
        if (moved - centre).norm() <= _TOLERANCE * spread:
            return moved
        centre = moved
    return centre


def coordinate_median(points: Tensor, weights: Tensor) -> Tensor:
    """The weighted median of each coordinate; half way between two where both are."""
    ordered, order = points.sort(dim=0)
    share = weights[order].cumsum(dim=0) / weights.sum()
    low = ordered.gather(0, (share < 0.5 - _TIE).sum(dim=0, keepdim=True).clamp(max=len(points) - 1))
    high = ordered.gather(0, (share < 0.5 + _TIE).sum(dim=0, keepdim=True).clamp(max=len(points) - 1))
    return ((low + high) / 2).squeeze(0)


def trimmed_mean(points: Tensor, weights: Tensor, trim: float = _TRIM) -> Tensor:
    """The mean of each coordinate without the share ``trim``, in [0, 0.5), of the weight on either side.

    As Yin et al. (2018) average models. A point on the border counts with the part of its weight that is left.
    """
    ordered, order = points.sort(dim=0)
    ends = weights[order].cumsum(dim=0) / weights.sum()
    starts = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])
    left = (ends.clamp(trim, 1 - trim) - starts.clamp(trim, 1 - trim)) / (1 - 2 * trim)
    return (left * ordered).sum(dim=0)


CENTRES: dict[str, Centre] = {
    "mean": weighted_mean,
    "geometric-median": geometric_median,
    "median": coordinate_median,
    "trimmed-mean": trimmed_mean,
}


def _point_that_is_median(points: Tensor, weights: Tensor) -> Tensor | None:
    """The point that all others together pull at with less than its own weight, if there is one."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    pulls = torch.where(distances > 0, weights / distances.clamp(min=torch.finfo(distances.dtype).tiny), 0.0)
    forces = (pulls @ points - pulls.sum(dim=1, keepdim=True) * points).norm(dim=1)
    held = ((distances == 0) * weights).sum(dim=1)
    is_median = forces < held * (1 - _TOLERANCE)
    return points[int(is_median.int().argmax())] if is_median.any() else None


def _weiszfeld_step(points: Tensor, weights: Tensor, centre: Tensor, smallest: Tensor) -> Tensor:
    distances = (points - centre).norm(dim=1)
    here = distances <= smallest
    pulls = torch.where(here, 0.0, weights / distances.clamp(min=smallest))
    if pulls.sum() == 0:
        return centre
    target = pulls @ points / pulls.sum()
    held = weights[here].sum()
    if held == 0:
        return target
    force = ((points - centre) * pulls[:, None]).sum(dim=0).norm()
    stay = 1.0 if force <= held else float(held / force)
    return (1 - stay) * target + stay * centre
