"""What a few liars among many cannot move far: robust centres, bounded shares, agreement of sets with each other."""

from fedcl_distill.robust.agreement import Agreement
from fedcl_distill.robust.centres import CENTRES, coordinate_median, geometric_median, trimmed_mean, weighted_mean
from fedcl_distill.robust.shares import capped, check_share
from fedcl_distill.robust.verdict import Drop, Verdict

__all__ = [
    "CENTRES",
    "Agreement",
    "Drop",
    "Verdict",
    "capped",
    "check_share",
    "coordinate_median",
    "geometric_median",
    "trimmed_mean",
    "weighted_mean",
]
