"""What a release tells about the records it was made from: attacks, and how to judge them."""

from fedcl_distill.audit.epsilon import (
    Estimate,
    clopper_pearson,
    epsilon_lower_bound,
    epsilon_of_rates,
    one_run_epsilon,
    one_run_p_value,
)
from fedcl_distill.audit.inversion import GradientInversion, batch_gradients, matched, peak_signal_to_noise
from fedcl_distill.audit.membership import (
    NearCopies,
    auc,
    lira_scores,
    logit_confidences,
    near_copies,
    nearest,
    random_features,
    roc_curve,
    standardised,
    structural_similarity,
    true_positive_rate,
)

__all__ = [
    "Estimate",
    "GradientInversion",
    "NearCopies",
    "auc",
    "batch_gradients",
    "clopper_pearson",
    "epsilon_lower_bound",
    "epsilon_of_rates",
    "lira_scores",
    "logit_confidences",
    "matched",
    "near_copies",
    "nearest",
    "one_run_epsilon",
    "one_run_p_value",
    "peak_signal_to_noise",
    "random_features",
    "roc_curve",
    "standardised",
    "structural_similarity",
    "true_positive_rate",
]
