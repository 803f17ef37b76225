"""FedAvg whose nodes replay, on Avalanche, from memories of their own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from torch import nn

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed, isolated_rng
from fedcl_distill.settings import Positive, settings
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.losses import BalancedCrossEntropy
from strategies.continual.memory import Memory
from strategies.continual.memory_registry import named_memory
from strategies.continual.settings import ContinualSettings
from strategies.federated.aggregation import Answer, ReplyCollector
from strategies.federated.answers import WEIGHTS, put_weights, read_array, unpack_weights, weights_of
from strategies.federated.distillation import Distillation
from strategies.federated.fedavg import Averaging, ValidatedFedAvg
from strategies.federated.local_training import TrainRequest
from strategies.federated.requests import Task
from strategies.federated.strategy import ClientStep, ServerContext
from strategies.federated_continual.memories import MemorySize, register_strategy
from strategies.federated_continual.streams import ClientStream, StreamTask

MEMORY, BYTES_KEPT = "memory", "bytes-kept"
_STATE, _PAYLOAD, _TAKEN_IN = "replay-memory", "payload", "taken-in"


@dataclass(frozen=True, kw_only=True)
class ReplayRequest(TrainRequest):
    """Train the model you receive on your new samples, beside what your memory holds of earlier ones.

    Attributes:
        memory: name of the memory, such as "reservoir".
        memory_bytes: it may take.
        memory_settings: of its distillation, fields of :class:`ContinualSettings`.
        rounds: of each stage; in the last one, the memory takes in the new samples.
        replay_ratio: remembered samples for each new one.
        balanced: give every class of a batch the same weight in the loss.
    """

    memory: str
    memory_bytes: int
    memory_settings: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1
    replay_ratio: float = 1.0
    balanced: bool = True

    def local(self, seed: int, device: str) -> ContinualSettings:
        """The same as settings of a continual learner."""
        return ContinualSettings(
            **self.memory_settings,
            seed=seed,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            device=device,
        )


def train_with_replay(task: Task) -> RecordDict:
    """The server's model after training on the newest experience and the node's memory of those before."""
    assert isinstance(task, StreamTask), "only nodes that live through a stream are asked"
    stream, position = task.stream, task.position
    request = ReplayRequest.of(task.content)
    network = task.network(request, request.architecture)
    put_weights(network, unpack_weights(task.content))
    memory = _Kept(task, request, stream)
    memory.take_in(position)
    _train(network, task.data, memory.recall(), request, task)
    if task.server_round % request.rounds == 0:
        memory.take_in(position + 1)
    memory.keep()
    kept = MetricRecord({BYTES_KEPT: memory.bytes_kept})
    return RecordDict({WEIGHTS: weights_of(network), MEMORY: kept})


class _Kept:
    """The memory of a node, and how many experiences it has taken in.

    Every draw is named by the seed, the partition and the number of the experience. So a memory that was lost, with a
    round that failed or a run that was started anew, is made again from the experiences as it was.
    """

    def __init__(self, task: Task, request: ReplayRequest, stream: ClientStream) -> None:
        self._task, self._request, self._stream = task, request, stream
        seed = derive_seed(request.seed, "replay memory", task.partition)
        self._memory = named_memory(request.memory, request.local(seed, task.device), request.memory_bytes)
        self._taken_in = 0
        record = task.state.get(_STATE)
        if isinstance(record, ArrayRecord):
            self._taken_in = int(read_array(_TAKEN_IN, record[_TAKEN_IN], np.int64, (1,))[0])
            self._memory.restore(_loaded(read_array(_PAYLOAD, record[_PAYLOAD], np.uint8)))

    @property
    def bytes_kept(self) -> int:
        return self._memory.bytes_kept

    def take_in(self, experiences: int) -> None:
        """Take in those up to the given number that are not in yet; one without samples adds nothing."""
        for position in range(self._taken_in, experiences):
            data = self._stream.experiences[position]
            if len(data):
                self._memory.add(data)
            self._taken_in = position + 1

    def recall(self) -> SyntheticSet | None:
        return self._memory.recall()

    def keep(self) -> None:
        """Leave it in the node's state for the next round."""
        self._task.state[_STATE] = ArrayRecord(
            {_PAYLOAD: Array(_saved(self._memory)), _TAKEN_IN: Array(np.array([self._taken_in], np.int64))}
        )


@dataclass(frozen=True)
class _Recalled(Memory):
    """A memory as it was when training began, which takes nothing in: rounds of one stage repeat one experience."""

    held: SyntheticSet

    @property
    def bytes_kept(self) -> int:
        return 0

    def add(self, data: LabelledData) -> None:
        pass

    def recall(self) -> SyntheticSet:
        return self.held

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


def _train(network: Network, data: LabelledData, held: SyntheticSet | None, request: ReplayRequest, task: Task) -> None:
    from strategies.continual import Replay, in_parts  # here, because importing Avalanche takes ten seconds
    from strategies.continual.registry import StrategyParts
    from strategies.continual.run import avalanche_strategy, without_deprecations

    seed = task.seed(request)
    loss = BalancedCrossEntropy() if request.balanced else nn.CrossEntropyLoss()
    replay = None if held is None else Replay(_Recalled(held), data, ratio=request.replay_ratio, seed=seed)
    with isolated_rng(derive_seed(seed, "avalanche")), without_deprecations():
        strategy = avalanche_strategy(request.local(seed, task.device), network, StrategyParts(loss, replay))
        strategy.train(in_parts([data]).train_stream[0])


def _saved(memory: Memory) -> np.ndarray[Any, np.dtype[np.uint8]]:
    buffer = io.BytesIO()
    torch.save(memory.state(), buffer)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _loaded(payload: np.ndarray[Any, Any]) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(payload.tobytes()), weights_only=True)
    return state


REPLAY = ClientStep("replay", train_with_replay)


@register_strategy("fedavg-replay")
@settings
class ReplayFedAvg(MemorySize, Averaging):
    """Models, trained on each experience and on what every node remembers of its earlier ones.

    Attributes:
        memory: which each node keeps: one of ``strategies.continual.MEMORIES``.
        replay_ratio: remembered samples for each new one.
        balanced: give every class of a batch the same weight in the loss.
        distillation: by which a memory distils, and the bits of a remembered value.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    memory: str = "reservoir"
    replay_ratio: Positive = 1.0
    balanced: bool = True
    distillation: Distillation = Distillation()

    client_steps = (REPLAY,)

    def __post_init__(self) -> None:
        if self.local.augment:
            raise SettingsError("fedavg-replay trains by Avalanche, which does not augment; leave local_augment out")

    def server(self, context: ServerContext) -> ReplayFedAvgServer:
        plain, template, collector = self.parts(context)
        of_memory = self.distillation.request(context.seed)
        request = plain.extended(
            ReplayRequest,
            memory=self.memory,
            replay_ratio=self.replay_ratio,
            balanced=self.balanced,
            memory_bytes=self.memory_budget(context.test, of_memory.bits),
            memory_settings={
                "method": of_memory.method,
                "method_settings": of_memory.method_settings,
                "bits": of_memory.bits,
                "distil_steps": of_memory.steps,
                "distil_seconds": of_memory.seconds,
            },
            rounds=context.rounds,
        )
        named_memory(self.memory, request.local(0, context.device), request.memory_bytes)  # typing errors
        return ReplayFedAvgServer(request, template, collector)


class ReplayFedAvgServer(ValidatedFedAvg):
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
        return Message(message.content, message.metadata.dst_node_id, REPLAY.kind)

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
