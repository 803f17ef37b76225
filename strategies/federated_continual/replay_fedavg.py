"""FedAvg whose nodes replay from memories of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError
from fedcl_distill.networks import Network
from strategies.federated.algorithms.fedavg import ValidatedFedAvg
from strategies.federated.server.collector import Answer, ReplyCollector
from strategies.federated_continual.replay_work import BYTES_KEPT, MEMORY, REPLAY, ReplayRequest


class ReplayFedAvg(ValidatedFedAvg):
    """FedAvg with a memory of earlier experiences on every node.

    Args:
        request, template, collector: as for :class:`ValidatedFedAvg`.
        flower: further arguments of Flower's strategy.

    Attributes:
        client_bytes: that each partition said it keeps, when it was last heard.
    """

    request: ReplayRequest

    def __init__(self, request: ReplayRequest, template: Network, collector: ReplyCollector, **flower: Any) -> None:
        super().__init__(request, template, collector, **flower)
        self.client_bytes: dict[int, int] = {}

    def _addressed(self, message: Message) -> Message:
        return Message(message.content, message.metadata.dst_node_id, REPLAY)

    def _read(self, content: RecordDict) -> RecordDict:
        return RecordDict({**super()._read(content), MEMORY: MetricRecord({BYTES_KEPT: self._bytes_kept(content)})})

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        for answer in answers:
            kept = answer.value.pop(MEMORY)
            self.client_bytes[answer.facts.partition] = int(str(kept[BYTES_KEPT]))

    def _bytes_kept(self, content: RecordDict) -> int:
        record = content.get(MEMORY)
        value = record.get(BYTES_KEPT) if isinstance(record, MetricRecord) else None
        if type(value) is not int or not 0 <= value <= self.request.memory_bytes:
            raise PayloadError(
                f"answer has {BYTES_KEPT} {str(value)[:50]}, expected a whole number up to {self.request.memory_bytes}"
            )
        return value
