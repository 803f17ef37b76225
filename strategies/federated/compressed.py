"""FedAvg with coded messages: models go down and updates come up in fewer bytes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from fedcl_distill.errors import CheckpointError, PayloadError, SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Range, settings
from strategies.federated.answers import UPDATE, WEIGHTS, pack_update, pack_vector, unpack_update, unpack_vector
from strategies.federated.collector import ReplyCollector
from strategies.federated.compression import Bytes, UpdateCodec, Vector, read_codec
from strategies.federated.fedavg import FedAvg, ValidatedFedAvg
from strategies.federated.local_training import TrainRequest, fit_locally, parameters_of
from strategies.federated.node import Task, keep, recall, reminding
from strategies.federated.strategy import ClientStep, ServerContext, register_strategy
from strategies.federated.weights import put_weights, read_weights, weights_of


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
