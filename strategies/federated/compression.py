"""FedAvg with coded messages: models go down and updates come up in fewer bytes; and the codecs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from fedcl_distill.errors import CheckpointError, PayloadError, SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.synthetic.quantise import pack, packed_bytes, padding_is_zero, unpack
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.answers import (
    UPDATE,
    WEIGHTS,
    pack_update,
    pack_vector,
    put_weights,
    read_weights,
    unpack_update,
    unpack_vector,
    weights_of,
)
from strategies.federated.fedavg import FedAvg, ValidatedFedAvg
from strategies.federated.local_training import TrainRequest, fit_locally, parameters_of
from strategies.federated.requests import Task, keep, recall, reminding
from strategies.federated.strategy import ClientStep, ServerContext, register_strategy

Vector = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class UpdateCodec(Protocol):
    """Codes vectors of a length that both sides know; the length fixes the number of bytes.

    Attributes:
        error_feedback: whether a sender adds to its next vector what this one lost.
    """

    @property
    def error_feedback(self) -> bool: ...

    def size(self, count: int) -> int:
        """Bytes that ``count`` values take."""
        ...

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        """uint8 (size,) for ``values``, float32 (count,) and finite; ``generator`` is for rounding at random."""
        ...

    def decode(self, payload: Bytes, count: int) -> Vector:
        """float32 (count,): what ``payload`` stands for.

        Raises:
            PayloadError: it is of another size, or not what :meth:`encode` writes.
        """
        ...


CODECS: Registry[UpdateCodec] = Registry("codec", "fedcl_distill.codecs")


@CODECS.register("plain")
@dataclass(frozen=True)
class Plain:
    """32 bits a value: nothing is lost."""

    error_feedback = False

    def size(self, count: int) -> int:
        return 4 * count

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        return values.astype("<f4").view(np.uint8)

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        return read_floats(payload, "<f4")


def check_size(payload: Bytes, expected: int) -> None:
    """Raise PayloadError unless ``payload`` has ``expected`` bytes."""
    if payload.size != expected:
        raise PayloadError(f"update of {payload.size} bytes, expected {expected}")


def read_floats(payload: Bytes, dtype: str) -> Vector:
    """float32 values stored as ``dtype``; PayloadError where one is NaN or infinite."""
    values = np.frombuffer(payload.tobytes(), dtype).astype(np.float32)
    if not np.isfinite(values).all():
        raise PayloadError("update holds NaN or infinity")
    return values


def require(condition: bool, otherwise: str) -> None:
    """Raise SettingsError unless ``condition`` holds."""
    if not condition:
        raise SettingsError(otherwise)


Positions = npt.NDArray[np.int64]


def positions_bytes(count: int, length: int) -> int:
    """Bytes that ``count`` of ``length`` positions take."""
    low, bitmap = _bits(count, length)
    return packed_bytes(count, low) + packed_bytes(bitmap, 1)


def encode_positions(positions: Positions, length: int) -> Bytes:
    """uint8 (positions_bytes,) for int64 (count,) ``positions``, strictly ascending in [0, length)."""
    low, bitmap = _bits(len(positions), length)
    ones = np.zeros(bitmap, np.uint8)
    if bitmap:
        ones[(positions >> low) + np.arange(len(positions))] = 1
    lows = (positions & ((1 << low) - 1)).astype(np.uint32)
    return np.concatenate([pack(lows, low), np.packbits(ones)])


def decode_positions(payload: Bytes, count: int, length: int) -> Positions:
    """The inverse of :func:`encode_positions`, for ``positions_bytes(count, length)`` bytes.

    Raises:
        PayloadError: positions are out of range, repeated, or not ``count``.
    """
    if count == length:
        return np.arange(length)
    low, bitmap = _bits(count, length)
    packed, ones = np.split(payload, [packed_bytes(count, low)])
    places = np.flatnonzero(np.unpackbits(ones, count=bitmap))
    if len(places) != count:
        raise PayloadError(f"update has {len(places)} positions, expected {count}")
    positions = (places - np.arange(count)) << low | unpack(packed, low, count).astype(np.int64)
    if positions[-1] >= length or (np.diff(positions) <= 0).any():
        raise PayloadError(f"positions of an update must ascend below {length}")
    if not padding_is_zero(packed, low, count) or not padding_is_zero(ones, 1, bitmap):
        raise PayloadError("update has bits where padding was expected")
    return positions


def _bits(count: int, length: int) -> tuple[int, int]:
    """Low bits of each position, and the bitmap's length."""
    if count == length:
        return 0, 0
    low = (length // count).bit_length() - 1
    return low, count + ((length - 1) >> low)


@CODECS.register("quantised")
@settings
class Quantised:
    """2**bits − 1 levels, even from −scale to scale, with 0 among them; rounded to a neighbour without bias.

    Attributes:
        bits: of each value: 2, 4 or 8.
        bucket: values that share a scale, which takes 4 bytes.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    bits: Literal[2, 4, 8] = 8
    bucket: Count = 512
    error_feedback = False

    @property
    def steps(self) -> int:
        """Levels above 0."""
        return int(2 ** (self.bits - 1)) - 1

    def size(self, count: int) -> int:
        return 4 * self._buckets(count) + packed_bytes(count, self.bits)

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        buckets = self._in_buckets(values.astype(np.float64))
        scales = np.abs(buckets).max(axis=1)
        exact = buckets / np.where(scales == 0, 1, scales)[:, None] * self.steps
        below = np.floor(exact)
        levels = below + (generator.random(exact.shape) < exact - below)
        codes = (levels + self.steps).astype(np.uint8).reshape(-1)[: len(values)]
        return np.concatenate([scales.astype("<f4").view(np.uint8), pack(codes, self.bits)])

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        start, packed = np.split(payload, [4 * self._buckets(count)])
        scales, codes = read_floats(start, "<f4"), unpack(packed, self.bits, count)
        if (scales < 0).any():
            raise PayloadError("update has a negative scale")
        if (count and int(codes.max()) > 2 * self.steps) or not padding_is_zero(packed, self.bits, count):
            raise PayloadError(f"update has a code above {2 * self.steps}, or bits where padding was expected")
        levels = self._in_buckets(codes.astype(np.float64) - self.steps)
        values = levels * (scales.astype(np.float64) / self.steps)[:, None]
        return values.reshape(-1)[:count].astype(np.float32)

    def _buckets(self, count: int) -> int:
        return -(-count // self.bucket)

    def _in_buckets(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(buckets, bucket), the last one filled up with zeros."""
        rows = self._buckets(len(values))
        padded = np.zeros(rows * self.bucket)
        padded[: len(values)] = values
        return padded.reshape(rows, self.bucket)


_TYPES = {16: "<f2", 32: "<f4"}
_MAX_HALF = 65504.0


@CODECS.register("topk")
@settings
class TopK:
    """Keeps the values of largest magnitude, of all layers together, and takes the others for 0.

    Attributes:
        fraction: of the values, in (0, 1]; at least one is kept.
        value_bits: of each kept value, 16 or 32.
        error_feedback: whether a sender adds what was lost, rounding included, to its next update (Karimireddy et al.
            2019).

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    fraction: Annotated[float, Range(gt=0, le=1)] = 0.01
    value_bits: Literal[16, 32] = 16
    error_feedback: bool = True

    def kept(self, count: int) -> int:
        """How many of ``count`` values are sent."""
        return max(1, round(self.fraction * count))

    def size(self, count: int) -> int:
        kept = self.kept(count)
        return kept * self.value_bits // 8 + positions_bytes(kept, count)

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        kept = self.kept(len(values))
        largest = np.sort(np.argpartition(-np.abs(values), kept - 1)[:kept])
        chosen = values[largest]
        if self.value_bits == 16:
            chosen = chosen.clip(-_MAX_HALF, _MAX_HALF)
        return np.concatenate(
            [chosen.astype(_TYPES[self.value_bits]).view(np.uint8), encode_positions(largest, len(values))]
        )

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        kept = self.kept(count)
        chosen, places = np.split(payload, [kept * self.value_bits // 8])
        values = np.zeros(count, np.float32)
        values[decode_positions(places, kept, count)] = read_floats(chosen, _TYPES[self.value_bits])
        return values


def read_codec(text: str) -> UpdateCodec:
    """The codec that ``text`` names: "plain", "topk:fraction=0.01" or "quantised:bits=4".

    Raises:
        SettingsError: the name or a setting is unknown, or a value is out of range.
    """
    return CODECS.build(text)


__all__ = ["Plain", "Quantised", "TopK", "UpdateCodec", "Vector", "read_codec"]


@dataclass(frozen=True, kw_only=True)
class CompressedRequest(TrainRequest):
    """Train the model you receive, and send what changed.

    Attributes:
        download, upload: codecs of the model and of the update, as text for ``read_codec``.
    """

    download: str = "plain"
    upload: str = "plain"


def train_compressed(task: Task) -> RecordDict:
    """What local training changes, coded as asked; what coding loses waits for the next round, if the codec says so."""
    request = task.read(CompressedRequest)
    download, upload = read_codec(request.download), read_codec(request.upload)
    network = task.network(request, request.architecture)
    count = parameters_of(network).numel()
    start = download.decode(unpack_update(task.content, WEIGHTS, download.size(count)), count)
    vector_to_parameters(torch.from_numpy(start.copy()).to(task.device), network.parameters())
    fit_locally(task, network, request)
    update = parameters_of(network).numpy() - start
    payload = _with_feedback(task, update, upload, task.seed(request))
    return RecordDict({UPDATE: pack_update(payload)})


def _with_feedback(task: Task, update: Vector, codec: UpdateCodec, seed: int) -> Bytes:
    """The payload for ``update`` and what earlier payloads lost (Karimireddy et al. 2019)."""
    if codec.error_feedback:
        update = update + _lost_before(task, len(update))
    payload = codec.encode(update, np.random.default_rng(derive_seed(seed, "upload")))
    if codec.error_feedback:
        lost = update - codec.decode(payload, len(update))
        keep(task.state, task.server_round, pack_vector(lost))
    return payload


def _lost_before(task: Task, count: int) -> Vector:
    try:
        kept = recall(task.state, task.content)
    except CheckpointError:  # a node that restarted has nothing to make up for
        kept = None
    return np.zeros(count, np.float32) if kept is None else unpack_vector(kept, count)


COMPRESSED = ClientStep("compressed", train_compressed)


@settings
class Compressed(FedAvg):
    """Base of FedAvg with coded messages.

    Attributes:
        download_bits: in which the model goes down.
    """

    download_bits: Literal[2, 4, 8, 32] = 32

    client_steps = (COMPRESSED,)

    @property
    @abstractmethod
    def upload(self) -> str:
        """The codec of updates, as text."""

    def server(self, context: ServerContext) -> CompressedFedAvg:
        request, template, collector = self.parts(context)
        download = "plain" if self.download_bits == 32 else f"quantised:bits={self.download_bits}"
        coded = request.extended(CompressedRequest, download=download, upload=self.upload)
        return CompressedFedAvg(coded, template, collector, client_share=self.client_share)


@register_strategy("topk")
@settings
class TopKFedAvg(Compressed):
    """FedAvg with the largest values of each update, and error feedback (Stich et al. 2018).

    Attributes:
        fraction: of the values of an update, in (0, 1].
        value_bits: of each of them.
        error_feedback: what is lost is added to the node's next update (Karimireddy et al. 2019).
    """

    fraction: Annotated[float, Range(gt=0, le=1)] = 0.01
    value_bits: Literal[16, 32] = 16
    error_feedback: bool = True

    @property
    def upload(self) -> str:
        feedback = "true" if self.error_feedback else "false"
        return f"topk:fraction={self.fraction},value_bits={self.value_bits},error_feedback={feedback}"


@register_strategy("quantised")
@settings
class FedPAQ(Compressed):
    """FedAvg with updates of few bits a value, rounded without bias (Reisizadeh et al. 2020).

    Attributes:
        bits: of a value.
    """

    bits: Literal[2, 4, 8] = 8

    @property
    def upload(self) -> str:
        return f"quantised:bits={self.bits}"


class CompressedFedAvg(ValidatedFedAvg):
    """Sends the model by one codec and receives what nodes changed by another.

    The server's own model is never rounded: the mean of the updates is added to what it had before coding. With
    ``topk`` this is FedAvg with sparse updates and error feedback (Stich et al. 2018), with ``quantised`` FedPAQ
    (Reisizadeh et al. 2020).

    Args:
        request, template, collector: as for :class:`ValidatedFedAvg`; the request names the codecs.
        flower: further arguments of Flower's strategy.

    Raises:
        SettingsError: a codec is unknown, or the network has buffers, which no update holds.
    """

    request: CompressedRequest

    def __init__(self, request: CompressedRequest, template: Network, collector: ReplyCollector, **flower: Any) -> None:
        super().__init__(request, template, collector, **flower)
        if any(True for _ in template.buffers()):
            raise SettingsError("compressed updates hold parameters alone, but the network has buffers too")
        self.download, self.upload = read_codec(request.download), read_codec(request.upload)
        self._model: Vector = parameters_of(template).numpy()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send the coded model and the request to every node."""
        put_weights(self.template, arrays)
        self._model = parameters_of(self.template).numpy()
        generator = np.random.default_rng(derive_seed(self.request.seed, "download", server_round))
        coded = pack_update(self.download.encode(self._model, generator))
        return super().configure_train(server_round, coded, config, grid)

    def _sent(self, arrays: ArrayRecord) -> dict[str, Tensor]:
        return read_weights(weights_of(self.template), self.template)

    def _addressed(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        message = Message(message.content, node, COMPRESSED.kind)
        if not self.upload.error_feedback:
            return message
        return reminding(message, self.collector.used.get(node, 0))

    def _read(self, content: RecordDict) -> RecordDict:
        """The model that an update leads to, for Flower to average."""
        count = len(self._model)
        model = self._model + self.upload.decode(unpack_update(content, UPDATE, self.upload.size(count)), count)
        if not np.isfinite(model).all():
            raise PayloadError("update leads to an infinite model")
        vector_to_parameters(torch.from_numpy(model), self.template.parameters())
        return super()._read(RecordDict({WEIGHTS: weights_of(self.template)}))
