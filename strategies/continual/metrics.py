"""What a model knew when: the accuracy matrix, and what follows from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class AccuracyMatrix:
    """``rows[i][j]`` is the accuracy, in [0, 1], on the test data of experience j after training on experience i.

    ``untrained`` are the accuracies of the model before any training, where they were measured.

    All numbers below are computed from this matrix: Avalanche's own stream forgetting is 0 on some streams.
    """

    rows: tuple[tuple[float, ...], ...]
    untrained: tuple[float, ...] = ()

    @property
    def average_accuracy(self) -> float:
        """Mean accuracy over all experiences after the last one (Lopez-Paz and Ranzato 2017, ACC)."""
        return statistics.fmean(self.rows[-1])

    @property
    def average_by_stage(self) -> tuple[float, ...]:
        """After each experience, the mean accuracy over the experiences seen so far."""
        return tuple(statistics.fmean(row[: stage + 1]) for stage, row in enumerate(self.rows))

    @property
    def forgetting(self) -> float:
        """Mean, over all experiences but the last, of best earlier minus final accuracy (Chaudhry et al. 2018).

        The best is taken from the time an experience was trained to before the last one; 0 for a single experience.
        """
        last = len(self.rows) - 1
        lost = [max(self.rows[i][j] for i in range(j, last)) - self.rows[last][j] for j in range(last)]
        return statistics.fmean(lost) if lost else 0.0

    @property
    def backward_transfer(self) -> float:
        """Mean of final minus just-trained accuracy over all experiences but the last (Lopez-Paz and Ranzato 2017)."""
        last = len(self.rows) - 1
        gained = [self.rows[last][j] - self.rows[j][j] for j in range(last)]
        return statistics.fmean(gained) if gained else 0.0

    @property
    def forward_transfer(self) -> float | None:
        """Mean, over all experiences but the first, of accuracy before its training minus that of the untrained model.

        Lopez-Paz and Ranzato 2017, FWT; None where the untrained model was not measured or training was all at once.
        """
        if len(self.untrained) != len(self.rows):
            return None
        gained = [self.rows[j - 1][j] - self.untrained[j] for j in range(1, len(self.rows))]
        return statistics.fmean(gained) if gained else 0.0
