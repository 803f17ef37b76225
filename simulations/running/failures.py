"""Runs that fail while others of the same comparison go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedcl_distill.errors import FedclDistillError, StorageError
from simulations.running.runs import Run

_NAMES = ("strategy", "method", "data", "seed")


class ComparisonError(FedclDistillError, RuntimeError):
    """Some runs of a comparison failed; what the others gave is there."""


@dataclass
class Failures:
    """What went wrong in a comparison.

    Attributes:
        errors: one for each run that failed.
    """

    errors: list[FedclDistillError] = field(default_factory=list)

    def take(self, run: Run, error: Exception) -> str:
        """Keep ``error`` of ``run`` and return a line about it.

        Raises:
            Exception: ``error`` itself, where the next run could not do better: nothing can be written, or it is a
                mistake in the program and not in what was asked.
        """
        if isinstance(error, StorageError) or not isinstance(error, FedclDistillError):
            raise error
        self.errors.append(error)
        return f"failed: {describe(run)}: {error}"

    def check(self) -> None:
        """Return if all runs came to their ends.

        Raises:
            FedclDistillError: the one error that there was.
            ComparisonError: several runs failed; the message has each reason once.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            reasons = Counter(str(error) for error in self.errors)
            lines = [f"  {count} times: {reason}" for reason, count in reasons.most_common()]
            raise ComparisonError("\n".join([f"{len(self.errors)} runs failed", *lines]))


def describe(run: Run) -> str:
    """A few words on ``run``, such as "federated strategy=fedavg seed=0"."""
    settings = run.settings.as_record()
    return " ".join([run.kind, *(f"{name}={settings[name]}" for name in _NAMES if settings.get(name) is not None)])
