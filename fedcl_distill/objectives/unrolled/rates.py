"""Learning rates of an inner training: fixed, or learned with the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned


class InnerRates(Protocol):
    """Gives the learning rate of every step."""

    def learned(self, steps: int) -> dict[str, Learned]:
        """What is learned of them, by name."""
        ...

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        """float (steps,): positive, differentiable in what is learned; dtype and device are those of ``like``."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FixedRate:
    """The same rate at every step, not learned."""

    value: float = 0.01

    def __post_init__(self) -> None:
        _check_rate(self.value)

    def learned(self, steps: int) -> dict[str, Learned]:
        return {}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return like.new_full((steps,), self.value)

    def settings(self) -> dict[str, Any]:
        return {"inner_rates": "fixed", "inner_learning_rate": self.value}


@dataclass(frozen=True)
class LearnedRate:
    """One rate for all steps, learned as the softplus of a free value."""

    value: float = 0.02
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        _check_rate(self.value)

    def learned(self, steps: int) -> dict[str, Learned]:
        return {"inner_rate": Learned(torch.tensor(inverse_softplus(self.value)), self.learning_rate)}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return F.softplus(learned["inner_rate"]).to(like).expand(steps)

    def settings(self) -> dict[str, Any]:
        return {
            "inner_rates": "learned",
            "inner_learning_rate": self.value,
            "inner_learning_rate_rate": self.learning_rate,
        }


@dataclass(frozen=True)
class LearnedRates:
    """A rate for each step, learned as softplus of free values (Wang et al. 2018, authors' code).

    Attributes:
        value: all rates before the first synthetic step.
        learning_rate: of the optimiser of the samples, for these values.
    """

    value: float = 0.02
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        _check_rate(self.value)

    def learned(self, steps: int) -> dict[str, Learned]:
        return {"inner_rates": Learned(torch.full((steps,), inverse_softplus(self.value)), self.learning_rate)}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return F.softplus(learned["inner_rates"]).to(like)

    def settings(self) -> dict[str, Any]:
        return {
            "inner_rates": "learned for each step",
            "inner_learning_rate": self.value,
            "inner_learning_rate_rate": self.learning_rate,
        }


def inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value`` > 0."""
    return value + math.log(-math.expm1(-value))


def _check_rate(value: float) -> None:
    if not 0 < value < math.inf:
        raise SettingsError(f"an inner learning rate must be positive, got {value}")
