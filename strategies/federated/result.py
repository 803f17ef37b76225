"""What a federated run reached, and what it cost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord

from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.collector import Rejection
from strategies.federated.grid import ByteLedger

_MOST_REASONS = 5


@dataclass(frozen=True)
class RoundResult:
    """The state after a round; round 0 is the fresh model.

    Attributes:
        server_round: from 0.
        accuracy: of the global model on the central test data, in [0, 1]; NaN where nothing was tested.
        class_accuracies: on each class; NaN for a class without test samples.
        bytes_up, bytes_down: sent by all nodes, and to all nodes, in all rounds so far.
        answers: that were used in this round.
        client_seconds: which the nodes behind those answers say they worked in this round, together.
        slowest_client_seconds: the longest of them: what a round would take where all nodes work at once.
        server_seconds: of the server's own work in this round, evaluation not included.
    """

    server_round: int
    accuracy: float
    class_accuracies: tuple[float, ...]
    bytes_up: int = 0
    bytes_down: int = 0
    answers: int = 0
    client_seconds: float = 0.0
    slowest_client_seconds: float = 0.0
    server_seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """JSON values; None for NaN."""
        return {
            "round": self.server_round,
            "accuracy": None if math.isnan(self.accuracy) else self.accuracy,
            "class_accuracies": [None if math.isnan(one) else one for one in self.class_accuracies],
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "answers": self.answers,
            "client_seconds": round(self.client_seconds, 3),
            "slowest_client_seconds": round(self.slowest_client_seconds, 3),
            "server_seconds": round(self.server_seconds, 3),
        }


@dataclass(frozen=True)
class FederatedResult:
    """A run.

    Attributes:
        rounds: round 0 first.
        rejections: answers that were not used.
        ledger: every message's bytes.
        weights: of the final global model.
        synthetic: the union of synthetic sets it was trained on, for strategies that have one.
        clients_per_class: how many clients' sets in the last round held each class, for those strategies; a class with
            0 was covered by nobody.
        model: what the user's own training returned, where there was one.
    """

    rounds: tuple[RoundResult, ...]
    rejections: tuple[Rejection, ...]
    ledger: ByteLedger = field(repr=False)
    weights: ArrayRecord = field(repr=False)
    synthetic: SyntheticSet | None = field(default=None, repr=False)
    clients_per_class: tuple[int, ...] | None = None
    model: Any = field(default=None, repr=False)

    @property
    def accuracy(self) -> float:
        """Of the final global model on the central test data, in [0, 1]."""
        return self.rounds[-1].accuracy

    def __str__(self) -> str:
        """Who was turned away comes first, one line a reason; then what was reached, and for how many bytes."""
        last = self.rounds[-1]
        reached = f"accuracy {100 * last.accuracy:.1f} %" if not math.isnan(last.accuracy) else "nothing was tested"
        lines = [f"{reached} after {last.server_round} rounds, {last.bytes_up:,} bytes up, {last.bytes_down:,} down"]
        if not self.rejections:
            return lines[0]
        reasons = Counter(one.reason for one in self.rejections)
        nodes = {one.node for one in self.rejections}
        head = f"REJECTED: {len(self.rejections)} answers of {len(nodes)} nodes were not used"
        named = [f"  {count} × {reason}" for reason, count in reasons.most_common(_MOST_REASONS)]
        return "\n".join([head, *named, *lines])

    def as_record(self) -> dict[str, Any]:
        """JSON values: the final round's accuracy and bytes on top, seconds summed over all rounds."""
        last = self.rounds[-1].as_record()
        return {
            "accuracy": last["accuracy"],
            "class_accuracies": last["class_accuracies"],
            "bytes_up": last["bytes_up"],
            "bytes_down": last["bytes_down"],
            "client_seconds": round(sum(one.client_seconds for one in self.rounds), 3),
            "slowest_client_seconds": round(sum(one.slowest_client_seconds for one in self.rounds), 3),
            "server_seconds": round(sum(one.server_seconds for one in self.rounds), 3),
            "synthetic_samples": None if self.synthetic is None else len(self.synthetic),
            "privacy": None if self.synthetic is None else self.synthetic.provenance.get("privacy"),
            "clients_per_class": None if self.clients_per_class is None else list(self.clients_per_class),
            "rounds": [one.as_record() for one in self.rounds],
            "bytes_by_client": self.ledger.as_record(),
            "rejections": [one.as_record() for one in self.rejections],
        }
