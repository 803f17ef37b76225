"""What a continual run leaves behind: the accuracy matrix, what follows from it, bytes and seconds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from fedcl_distill.synthetic import SyntheticSet


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


@dataclass(frozen=True)
class ContinualResult:
    """Outcome of one run.

    Attributes:
        matrix: accuracy on every experience after every experience.
        test_accuracy: on all test samples together, after the last experience.
        classes: names of the classes of each experience.
        bytes_kept: after each experience, of all that the strategy keeps beside the model: samples, scores, older
            weights, or all data where these are trained on again; 0 for nothing.
        train_seconds, memory_seconds: training (memory excluded) and taking in, for each experience.
        memory_cpu_seconds: of taking in, by the processor: they hang less on what else the machine does.
        replayed: remembered samples that were added to training batches, in all.
        memory: what is remembered at the end, or None.
    """

    matrix: AccuracyMatrix
    test_accuracy: float
    classes: tuple[tuple[str, ...], ...]
    bytes_kept: tuple[int, ...]
    train_seconds: tuple[float, ...]
    memory_seconds: tuple[float, ...]
    memory_cpu_seconds: tuple[float, ...]
    replayed: int
    memory: SyntheticSet | None

    def as_record(self) -> dict[str, Any]:
        """JSON values for a result line."""
        return {
            "matrix": [list(row) for row in self.matrix.rows],
            "average_accuracy": self.matrix.average_accuracy,
            "average_by_stage": list(self.matrix.average_by_stage),
            "forgetting": self.matrix.forgetting,
            "backward_transfer": self.matrix.backward_transfer,
            "forward_transfer": self.matrix.forward_transfer,
            "test_accuracy": self.test_accuracy,
            "classes": [list(names) for names in self.classes],
            "memory_bytes": list(self.bytes_kept),
            "memory_counts": [] if self.memory is None else self.memory.class_counts.tolist(),
            "train_seconds": [round(seconds, 3) for seconds in self.train_seconds],
            "memory_seconds": [round(seconds, 3) for seconds in self.memory_seconds],
            "memory_cpu_seconds": [round(seconds, 3) for seconds in self.memory_cpu_seconds],
            "replayed": self.replayed,
        }
