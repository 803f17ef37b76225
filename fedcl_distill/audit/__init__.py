"""What a release tells about the records it was made from: attacks, and how to judge them."""

from fedcl_distill.audit.binomial import Estimate, clopper_pearson
from fedcl_distill.audit.confidence import logit_confidences
from fedcl_distill.audit.copies import NearCopies, near_copies, standardised, structural_similarity
from fedcl_distill.audit.epsilon import epsilon_lower_bound, epsilon_of_rates, one_run_epsilon, one_run_p_value
from fedcl_distill.audit.inversion import GradientInversion, batch_gradients, matched, peak_signal_to_noise
from fedcl_distill.audit.lira import lira_scores
from fedcl_distill.audit.nearest import nearest, random_features
from fedcl_distill.audit.roc import auc, roc_curve, true_positive_rate

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
