"""How much work a distillation may do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Literal

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import Count, Natural, NonNegative, settings

_PATIENCE = 2  # windows


@settings
class Budget:
    """Optimisation steps or seconds (preparation included); at least one of them.

    Only a budget of steps is reproducible bit by bit: how many steps fit into a second is the machine's affair.

    Attributes:
        steps: optimisation steps.
        seconds: by ``clock``. Preparation (generators, teachers, networks that train on the real data) counts, and gets
            half of them at most: it then does less than a budget of steps would let it, and at least one step of each.
        clock: "wall", or "cpu": seconds of all threads of this process, which hang less on what else the machine
            does.
        plateau: ends the run earlier, once the mean loss of two successive windows of so many steps is no lower than
            that of any window before; None goes on.

    Raises:
        SettingsError: on construction, if a value is out of range or there are neither steps nor seconds.
    """

    steps: Natural | None = None
    seconds: NonNegative | None = None
    clock: Literal["wall", "cpu"] = "wall"
    plateau: Count | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            beside = "" if self.plateau is None else ", beside plateau too"
            raise SettingsError(f"a budget needs steps or seconds{beside}")

    def now(self) -> float:
        """The clock's reading, in seconds; only differences mean anything."""
        return time.process_time() if self.clock == "cpu" else time.monotonic()

    @classmethod
    def if_given(
        cls,
        steps: int | None,
        seconds: float | None,
        clock: Literal["wall", "cpu"] = "wall",
        plateau: int | None = None,
    ) -> Budget | None:
        """A budget, or None where neither steps nor seconds are given: a method then takes its own.

        Raises:
            SettingsError: a plateau without either, or a value out of range.
        """
        return None if steps is None and seconds is None and plateau is None else cls(steps, seconds, clock, plateau)

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the budget that is spent, in [0, 1]; 1 ends the run."""
        by_steps = 0.0 if self.steps is None else (step / self.steps if self.steps else 1.0)
        by_seconds = 0.0 if self.seconds is None else (seconds / self.seconds if self.seconds else 1.0)
        return min(1.0, max(by_steps, by_seconds))

    def settled(self, losses: Sequence[float]) -> bool:
        """Whether ``losses``, one for every step so far, say that the plateau is reached; asked after every step.

        Nothing else counts, so that a resumed run ends at the step where it would have ended in one go.
        """
        if not self.plateau or not losses or len(losses) % self.plateau:
            return False
        ends = range(self.plateau, len(losses) + 1, self.plateau)
        means = [statistics.fmean(losses[end - self.plateau : end]) for end in ends]
        return len(means) > _PATIENCE and min(means[-_PATIENCE:]) >= min(means[:-_PATIENCE])
