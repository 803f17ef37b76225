"""LiRA: the likelihood-ratio attack with shadow releases (Carlini et al. 2022, section IV)."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.errors import DataError

_LEAST_VARIANCE = 1e-12


def lira_scores(observed: Tensor, shadows: Tensor, members: Tensor, *, offline: bool = False) -> Tensor:
    """float64 (n,): how much likelier each observation is if its sample was a member than if it was not.

    The observations of one sample are taken as normal: with a mean of its own over the shadows that had the sample
    and another over those that had not, and with one variance for all samples on either side, which the authors
    recommend where shadows are few. A sample that all shadows had, or none, takes the missing mean at the usual
    distance from the other.

    Args:
        observed: floats (n,): what the audited release shows of each sample, such as
            :func:`~fedcl_distill.audit.logit_confidences`.
        shadows: floats (releases, n): the same of releases whose members the attacker knows.
        members: bool (releases, n): who was a member of which shadow.
        offline: score by how unusual the observation is for a sample that was no member; shadows with the samples are
            not needed then.

    Raises:
        DataError: shapes differ, an observation is not finite, or shadows had all or none of the samples.
    """
    if shadows.shape != members.shape or shadows.ndim != 2 or observed.shape != shadows.shape[1:]:
        raise DataError(
            f"observations of shape {tuple(observed.shape)}, shadows {tuple(shadows.shape)}, members "
            f"{tuple(members.shape)} do not belong together"
        )
    if not torch.isfinite(shadows).all() or not torch.isfinite(observed).all():
        raise DataError("observations hold NaN or infinity")
    if not (~members).any() or not (offline or members.any()):
        raise DataError("shadows must hold some samples and leave out others")
    observed, shadows = observed.double(), shadows.double()
    outside, outside_variance = _fit(shadows, ~members)
    if offline:
        mean = torch.where(outside.isnan(), outside.nanmean(), outside)
        unusual: Tensor = torch.special.log_ndtr((observed - mean) / outside_variance.sqrt())
        return unusual
    inside, inside_variance = _fit(shadows, members)
    gap = (inside - outside).nanmean().nan_to_num(0.0)
    inside, outside = (
        torch.where(inside.isnan(), outside + gap, inside),
        torch.where(outside.isnan(), inside - gap, outside),
    )
    return _log_density(observed, inside, inside_variance) - _log_density(observed, outside, outside_variance)


def _fit(shadows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the chosen observations of each sample, NaN for none, and their variance within samples."""
    counts = chosen.sum(dim=0)
    means = torch.where(chosen, shadows, 0.0).sum(dim=0) / counts
    squares = torch.where(chosen, shadows - means, 0.0).square().sum()
    freedom = (counts - 1).clamp(min=0).sum()
    if freedom == 0:  # a single observation of each: how samples differ is the best guess there is
        return means, shadows[chosen].var(correction=0).clamp(min=_LEAST_VARIANCE)
    return means, (squares / freedom).clamp(min=_LEAST_VARIANCE)


def _log_density(values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Of a normal distribution, up to a constant."""
    return -0.5 * ((values - mean).square() / variance + variance.log())
