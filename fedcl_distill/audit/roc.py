"""How well scores tell members from others. A larger score claims membership; ties are handled exactly."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from fedcl_distill.audit.binomial import Estimate, check_confidence, clopper_pearson
from fedcl_distill.errors import DataError, SettingsError


def auc(members: Tensor, others: Tensor, confidence: float = 0.95) -> Estimate:
    """Probability that a member scores above another sample, ties counted half (Mann and Whitney 1947).

    The interval is normal with the variance of DeLong et al. (1988), cut to [0, 1]. It has no width where the two
    groups do not overlap at all.

    Args:
        members, others: floats (n,) and (m,), at least two of each, no NaN.
        confidence: of the interval.

    Raises:
        DataError: too few scores, or NaN.
    """
    check_confidence(confidence)
    members, others = _checked(members), _checked(others)
    above_others = _fraction_below(members, others)
    below_members = 1 - _fraction_below(others, members)
    value = float(above_others.mean())
    variance = float(above_others.var() / len(members) + below_members.var() / len(others))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * variance**0.5
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))


def true_positive_rate(
    members: Tensor, others: Tensor, false_positive_rate: float, confidence: float = 0.95
) -> Estimate:
    """Fraction of members found by the lowest threshold that accepts at most this fraction of the others.

    The threshold depends on the others alone, so that the interval of Clopper and Pearson holds for the members,
    given the threshold.

    Raises:
        DataError: too few scores, or NaN.
        SettingsError: the rate is not in [0, 1].
    """
    if not 0 <= false_positive_rate <= 1:
        raise SettingsError(f"a false positive rate is in [0, 1], got {false_positive_rate}")
    members, others = _checked(members), _checked(others)
    accepted = int(false_positive_rate * len(others) + 1e-9)
    if accepted == len(others):
        return Estimate(1.0, 1.0, 1.0)
    threshold = others.sort(descending=True).values[accepted]
    return clopper_pearson(int((members > threshold).sum()), len(members), confidence)


def roc_curve(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """float64 (k,) false and true positive rates of every distinct threshold, from (0, 0) to (1, 1).

    Raises:
        DataError: too few scores, or NaN.
    """
    members, others = _checked(members), _checked(others)
    thresholds = torch.unique(torch.cat([members, others]))
    rates = [
        1 - torch.searchsorted(scores.sort().values, thresholds).double() / len(scores) for scores in (others, members)
    ]
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, rates[0].flip(0)]), torch.cat([zero, rates[1].flip(0)])


def _fraction_below(scores: Tensor, references: Tensor) -> Tensor:
    """For each of ``scores``, the fraction of ``references`` below it, ties counted half."""
    ordered = references.sort().values
    below, up_to = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(references))


def _checked(scores: Tensor) -> Tensor:
    if scores.ndim != 1 or len(scores) < 2:
        raise DataError(f"an audit needs two scores of each group at least, got shape {tuple(scores.shape)}")
    if torch.isnan(scores).any():
        raise DataError("scores hold NaN")
    return scores.double()
