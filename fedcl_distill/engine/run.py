"""One distillation under way: what callbacks see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.state import DistillationState


@dataclass(frozen=True)
class Progress:
    """Where a run stands: ``fraction`` of its budget in [0, 1], ``rate`` in steps a second, times in seconds."""

    step: int
    loss: float
    seconds: float
    fraction: float

    @property
    def rate(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0

    @property
    def remaining_seconds(self) -> float:
        return self.seconds * (1 - self.fraction) / self.fraction if self.fraction else float("inf")


@dataclass
class Run:
    """One run.

    Attributes:
        state: what is optimised, and how far it is.
        budget: how far it may go.
        name: computes ``fingerprint``; asked for only where there are checkpoints, since it reads all data.
        ended: a callback may set it, so that no further step is done and the run counts as complete.
    """

    state: DistillationState
    budget: Budget
    name: Callable[[], str]
    ended: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Names data, size, seed and settings; a checkpoint of another fingerprint is refused."""
        return self.name()

    @property
    def progress(self) -> Progress:
        state = self.state
        done = self.ended or self.budget.settled(state.losses)
        fraction = 1.0 if done else self.budget.progress(state.step, state.seconds)
        return Progress(state.step, state.losses[-1] if state.losses else float("nan"), state.seconds, fraction)

    def summary(self) -> dict[str, Any]:
        """What provenance records of the run, as JSON values."""
        state = self.state
        return {
            "steps": state.step,
            "seconds": round(state.seconds, 3),
            "final_loss": state.losses[-1] if state.losses else None,
            **({"learned": {name: one.tolist() for name, one in state.learned.items()}} if state.learned else {}),
        }
