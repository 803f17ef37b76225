"""Differential privacy: what is guaranteed, how much noise that takes, where noise comes from, what is spent."""

from fedcl_distill.privacy.accounting import (
    Guarantee,
    Mechanism,
    PrivacyTarget,
    composed,
    epsilon_of,
    for_group,
    guarantee_of,
    noise_multiplier_for,
    shared_records,
    weakest,
)
from fedcl_distill.privacy.ledger import PrivacyBudget, Release
from fedcl_distill.privacy.noise import MAX_STEPS, NoiseSource, discrete_gaussian, guarantee_on_grid, publicly_scaled

__all__ = [
    "MAX_STEPS",
    "Guarantee",
    "Mechanism",
    "NoiseSource",
    "PrivacyBudget",
    "PrivacyTarget",
    "Release",
    "composed",
    "discrete_gaussian",
    "epsilon_of",
    "for_group",
    "guarantee_of",
    "guarantee_on_grid",
    "noise_multiplier_for",
    "publicly_scaled",
    "shared_records",
    "weakest",
]
