"""Secure aggregation (Bonawitz et al. 2017): the server learns the sum of what nodes hold, and no single summand."""

from strategies.federated.secure.crypto import SecureOptions
from strategies.federated.secure.node import SECURE_STEPS, send_words
from strategies.federated.secure.statistics import PrivateSecureStatistics, SecureStatistics
from strategies.federated.secure.sum import Fixed, SecureSum

__all__ = [
    "SECURE_STEPS",
    "Fixed",
    "PrivateSecureStatistics",
    "SecureOptions",
    "SecureStatistics",
    "SecureSum",
    "send_words",
]
