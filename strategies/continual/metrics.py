"""What a model knew when: the accuracy matrix, and what follows from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class AccuracyMatrix:
    """``rows[i][j]`` is the accuracy, in [0, 1], on the test data of experience j after training on experience i.

    ``untrained`` are the accuracies of the model before any training, where they were measured. ``learned_at[j]`` is
    the row after which experience j had been trained on for the first time, the number of rows if it never was; without
    it, experience j was trained on just before row j.

    All numbers below are computed from this matrix: Avalanche's own stream forgetting is 0 on some streams.
    """

    rows: tuple[tuple[float, ...], ...]
    untrained: tuple[float, ...] = ()
    learned_at: tuple[int, ...] = ()

    @property
    def average_accuracy(self) -> float:
        """Mean accuracy over all experiences after the last one (Lopez-Paz and Ranzato 2017, ACC)."""
        return statistics.fmean(self.rows[-1])

    @property
    def average_by_stage(self) -> tuple[float, ...]:
        """After each row, the mean accuracy over the experiences seen so far; 0 where there is none yet."""
        seen = [[row[j] for j, first in enumerate(self._firsts) if first <= i] for i, row in enumerate(self.rows)]
        return tuple(statistics.fmean(one) if one else 0.0 for one in seen)

    @property
    def forgetting(self) -> float:
        """Mean, over all experiences but the last, of best earlier minus final accuracy (Chaudhry et al. 2018).

        The best is taken from the time an experience was trained to before the last row; 0 for a single row.
        """
        last = len(self.rows) - 1
        lost = [max(self.rows[i][j] for i in range(first, last)) - self.rows[last][j] for j, first in self._earlier]
        return statistics.fmean(lost) if lost else 0.0

    @property
    def backward_transfer(self) -> float:
        """Mean of final minus just-trained accuracy over all experiences but the last (Lopez-Paz and Ranzato 2017)."""
        gained = [self.rows[-1][j] - self.rows[first][j] for j, first in self._earlier]
        return statistics.fmean(gained) if gained else 0.0

    @property
    def forward_transfer(self) -> float | None:
        """Mean, over all experiences but the first, of accuracy before its training minus that of the untrained model.

        Lopez-Paz and Ranzato 2017, FWT; None where the untrained model was not measured or training was all at once.
        """
        if len(self.untrained) != len(self.rows[0]) or (len(self.rows) == 1 and len(self.untrained) > 1):
            return None
        later = [(j, first) for j, first in enumerate(self._firsts) if 0 < first < len(self.rows)]
        gained = [self.rows[first - 1][j] - self.untrained[j] for j, first in later]
        return statistics.fmean(gained) if gained else 0.0

    @property
    def _firsts(self) -> tuple[int, ...]:
        return self.learned_at or tuple(range(len(self.rows[0])))

    @property
    def _earlier(self) -> list[tuple[int, int]]:
        """Experiences that were learned before the last row, and when."""
        return [(j, first) for j, first in enumerate(self._firsts) if first < len(self.rows) - 1]
