"""Judging a synthetic set: train from scratch on it, test on real data."""

from fedcl_distill.evaluation.evaluate import Evaluation, evaluate
from fedcl_distill.evaluation.protocol import FAST, FIELD, PROTOCOLS, QUICK, Protocol

__all__ = ["FAST", "FIELD", "PROTOCOLS", "QUICK", "Evaluation", "Protocol", "evaluate"]
