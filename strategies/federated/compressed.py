"""FedAvg with coded messages: models go down and updates come up in fewer bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch.nn.utils import vector_to_parameters

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from strategies.federated.answers import UPDATE, WEIGHTS, pack_update, unpack_update
from strategies.federated.collector import ReplyCollector
from strategies.federated.compression import Vector, read_codec
from strategies.federated.fedavg import ValidatedFedAvg
from strategies.federated.node import parameters_of, reminding
from strategies.federated.requests import COMPRESSED, CompressedRequest
from strategies.federated.weights import put_weights, weights_of


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

    def _addressed(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        message = Message(message.content, node, COMPRESSED)
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
        return RecordDict({WEIGHTS: weights_of(self.template)})
