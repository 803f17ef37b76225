"""Differential privacy: what is guaranteed, how much noise that takes, where noise comes from, what is spent."""

from fedcl_distill.privacy.accounting import epsilon_of, noise_multiplier_for
from fedcl_distill.privacy.discrete import MOST_STEPS, discrete_gaussian
from fedcl_distill.privacy.grid import guarantee_on_grid
from fedcl_distill.privacy.guarantee import Guarantee, Mechanism, guarantee_of, weakest
from fedcl_distill.privacy.ledger import PrivacyBudget, Release
from fedcl_distill.privacy.noise import NoiseSource
from fedcl_distill.privacy.public import publicly_scaled
from fedcl_distill.privacy.target import PrivacyTarget

__all__ = [
    "MOST_STEPS",
    "Guarantee",
    "Mechanism",
    "NoiseSource",
    "PrivacyBudget",
    "PrivacyTarget",
    "Release",
    "discrete_gaussian",
    "epsilon_of",
    "guarantee_of",
    "guarantee_on_grid",
    "noise_multiplier_for",
    "publicly_scaled",
    "weakest",
]
