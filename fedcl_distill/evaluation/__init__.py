"""Judging a synthetic set: train from scratch on it, test on real data."""

from fedcl_distill.evaluation.evaluate import Evaluation, evaluate
from fedcl_distill.evaluation.scores import (
    PGD,
    Attacked,
    Scores,
    augmentation_robust_score,
    kernel_accuracy,
    kernel_predictions,
    label_robust_score,
    real_accuracy,
    score,
)
from fedcl_distill.training import FAST, FIELD, PROTOCOLS, QUICK, Protocol, find_protocol

__all__ = [
    "FAST",
    "FIELD",
    "PGD",
    "PROTOCOLS",
    "QUICK",
    "Attacked",
    "Evaluation",
    "Protocol",
    "Scores",
    "augmentation_robust_score",
    "evaluate",
    "find_protocol",
    "kernel_accuracy",
    "kernel_predictions",
    "label_robust_score",
    "real_accuracy",
    "score",
]
