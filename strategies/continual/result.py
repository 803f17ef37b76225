"""What a continual run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.metrics import AccuracyMatrix


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
