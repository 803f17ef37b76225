"""What a federated continual run reached, and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from flwr.app import ArrayRecord

from strategies.continual.results import AccuracyMatrix
from strategies.federated.aggregation import Rejection
from strategies.federated.grid import ByteLedger


@dataclass(frozen=True)
class StageResult:
    """The state after a stage.

    Attributes:
        stage: from 0.
        accuracies: of the global model on the test data of every experience, in [0, 1].
        asked: clients that had something new.
        bytes_up, bytes_down: sent by all nodes, and to all nodes, in all stages so far.
        server_bytes: that the server keeps beside the model.
        client_bytes: that clients said they keep, all together.
        client_seconds: which the nodes behind used answers say they worked in this stage, together.
        slowest_client_seconds: the longest of each round, summed: what it takes where all nodes work at once.
        server_seconds: of the server's own work in this stage, evaluation not included.
    """

    stage: int
    accuracies: tuple[float, ...]
    asked: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    server_bytes: int = 0
    client_bytes: int = 0
    client_seconds: float = 0.0
    slowest_client_seconds: float = 0.0
    server_seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            name: round(value, 3) if name.endswith("seconds") else value for name, value in asdict(self).items()
        } | {"accuracies": list(self.accuracies)}


@dataclass(frozen=True)
class FederatedContinualResult:
    """A run.

    Attributes:
        stages: in their order.
        learned_at: the stage at which each experience was first learned from; the number of stages if none was.
        untrained: accuracies of the fresh model.
        classes: names of the classes of each experience.
        rejections: answers that were not used.
        ledger: every message's bytes.
        weights: of the final global model.
        memory_counts: remembered samples of each class, in the end; empty where the server keeps none.
    """

    stages: tuple[StageResult, ...]
    learned_at: tuple[int, ...]
    untrained: tuple[float, ...]
    classes: tuple[tuple[str, ...], ...]
    rejections: tuple[Rejection, ...]
    ledger: ByteLedger = field(repr=False)
    weights: ArrayRecord = field(repr=False)
    memory_counts: tuple[int, ...] = ()

    @property
    def matrix(self) -> AccuracyMatrix:
        """Global accuracy on every experience after every stage."""
        return AccuracyMatrix(tuple(one.accuracies for one in self.stages), self.untrained, self.learned_at)

    def as_record(self) -> dict[str, Any]:
        """JSON values: the last stage's accuracy and bytes on top, seconds summed over all stages."""
        matrix, last = self.matrix, self.stages[-1]
        seconds = ("client_seconds", "slowest_client_seconds", "server_seconds")
        return {
            "matrix": [list(row) for row in matrix.rows],
            "learned_at": list(self.learned_at),
            "average_accuracy": matrix.average_accuracy,
            "average_by_stage": list(matrix.average_by_stage),
            "forgetting": matrix.forgetting,
            "backward_transfer": matrix.backward_transfer,
            "forward_transfer": matrix.forward_transfer,
            "classes": [list(names) for names in self.classes],
            "bytes_up": last.bytes_up,
            "bytes_down": last.bytes_down,
            "server_bytes": last.server_bytes,
            "client_bytes": last.client_bytes,
            "memory_counts": list(self.memory_counts),
            **{name: round(sum(getattr(one, name) for one in self.stages), 3) for name in seconds},
            "stages": [one.as_record() for one in self.stages],
            "bytes_by_client": self.ledger.as_record(),
            "rejections": [one.as_record() for one in self.rejections],
        }
