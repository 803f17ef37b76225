"""How far back through an inner training the gradient goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for


class Truncation(Protocol):
    """Chooses which steps are taken, and which of them are differentiated."""

    def choose(self, steps: int, seed: int) -> range:
        """The steps that the gradient passes; all before them are taken too, those after the end are not."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class NoTruncation:
    """The gradient passes all steps."""

    def choose(self, steps: int, seed: int) -> range:
        return range(steps)

    def settings(self) -> dict[str, Any]:
        return {"truncation": "none"}


@dataclass(frozen=True)
class LastSteps:
    """The gradient passes the last ``window`` steps: cheaper, and biased towards samples that help late."""

    window: int

    def __post_init__(self) -> None:
        _check_window(self.window)

    def choose(self, steps: int, seed: int) -> range:
        return range(max(0, steps - self.window), steps)

    def settings(self) -> dict[str, Any]:
        return {"truncation": "last steps", "truncation_window": self.window}


@dataclass(frozen=True)
class RandomTruncation:
    """Each view trains for a random number of steps and differentiates the last ``window`` (Feng et al. 2024).

    Samples so help at every age of a network, at the price of a window.
    """

    window: int

    def __post_init__(self) -> None:
        _check_window(self.window)

    def choose(self, steps: int, seed: int) -> range:
        width = min(self.window, steps)
        end = width + int(torch.randint(steps - width + 1, (), generator=generator_for(seed, "truncation")))
        return range(end - width, end)

    def settings(self) -> dict[str, Any]:
        return {"truncation": "random", "truncation_window": self.window}


def _check_window(window: int) -> None:
    if window < 1:
        raise SettingsError(f"at least one step must be differentiated, got {window}")
