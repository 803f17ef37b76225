"""A product of powers, fitted by least squares on logarithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedcl_distill.errors import DataError

Sizes = Mapping[str, float]
"""Positive numbers by name."""


@dataclass(frozen=True)
class PowerLaw:
    """``factor`` · Π size^exponent over the sizes that ``exponents`` names.

    Attributes:
        max_error: of the values that it was fitted to: the largest of |predicted / measured − 1|.
        values: how many these were.
    """

    factor: float
    exponents: Mapping[str, float]
    max_error: float = 0.0
    values: int = 0

    def __call__(self, sizes: Sizes) -> float:
        """What the law gives at ``sizes``."""
        product = np.prod([sizes[name] ** power for name, power in self.exponents.items()])
        return self.factor * float(product)

    def __str__(self) -> str:
        powers = (f"{name}^{power:.2f}" for name, power in self.exponents.items())
        return " · ".join([f"{self.factor:.2e}", *powers])


def fit_power_law(sizes: Sequence[Sizes], values: Sequence[float]) -> PowerLaw:
    """The law that makes the sum of squared differences of logarithms smallest.

    A size that is the same for all values takes no part: it would be one with the factor.

    Raises:
        DataError: a number is not positive and finite, or there are fewer values than the law has free numbers.
    """
    names = [name for name in (sizes[0] if sizes else {}) if len({one[name] for one in sizes}) > 1]
    if len(values) <= len(names) or len(values) != len(sizes):
        raise DataError(f"a law of {len(names)} sizes needs more than as many values, got {len(values)}")
    table = np.array([[value, *(one[name] for name in names)] for one, value in zip(sizes, values, strict=True)])
    if not (np.isfinite(table).all() and (table > 0).all()):
        raise DataError("a power law takes positive, finite numbers")
    logarithms = np.log(table)
    wanted = logarithms[:, 0].copy()
    logarithms[:, 0] = 1.0
    solution, _, rank, _ = np.linalg.lstsq(logarithms, wanted, rcond=None)
    if rank < len(names) + 1:
        raise DataError(f"these values cannot tell the exponents of {', '.join(names)} apart")
    errors = np.abs(np.exp(logarithms @ solution - wanted) - 1)
    exponents = dict(zip(names, solution[1:].tolist(), strict=True))
    return PowerLaw(float(np.exp(solution[0])), exponents, float(errors.max()), len(values))
