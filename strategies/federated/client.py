"""The ClientApp: what a node does when it is asked to distil, or to train."""

from __future__ import annotations

import time
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.training import fit
from strategies.federated.arrays import put_weights, weights_of
from strategies.federated.internals import PARTITION_ID_KEY
from strategies.federated.messages import Facts, pack_set, pack_weights, unpack_weights
from strategies.federated.requests import read_distil, read_surrogate, read_train, round_of
from strategies.federated.weight_codec import unpack_network

DISTIL, SURROGATE = "train.distil", "train.surrogate"
"""Message types of requests to distil, and to distil around a network; one to train has Flower's own "train"."""

LoadData = Callable[[Context], LabelledData]


def make_client_app(load_data: LoadData) -> ClientApp:
    """A ClientApp that answers every request with the data that ``load_data`` finds for a node.

    ``load_data`` gets the node's context; its node configuration names the ``partition-id``. The node configuration
    may also name the ``device`` to compute on, as the run configuration may; "cpu" otherwise.

    An error on a node goes back as an error reply, as always in Flower.
    """
    app = ClientApp()

    @app.train("distil")
    def distil(message: Message, context: Context) -> Message:
        started = time.monotonic()
        request, server_round = read_distil(message.content), round_of(message.content)
        data, partition = load_data(context), partition_of(context)
        seed = request.seed_for(server_round, partition)
        synthetic = finished(request.distil(data, seed=seed, device=device_of(context)))
        facts = Facts(partition, len(data), time.monotonic() - started)
        return Message(pack_set(synthetic, request.bits, facts), reply_to=message)

    @app.train("surrogate")
    def surrogate(message: Message, context: Context) -> Message:
        started = time.monotonic()
        request, server_round = read_surrogate(message.content), round_of(message.content)
        data, partition = load_data(context), partition_of(context)
        seed, device = request.seed_for(server_round, partition), device_of(context)
        network = Architecture.parse(request.architecture).build(data.sample_shape, data.num_classes, seed=seed)
        unpack_network(network, unpack_weights(message.content), request.weight_bits)
        synthetic = finished(request.distil_around(network, data, seed=seed, device=device))
        facts = Facts(partition, len(data), time.monotonic() - started)
        return Message(pack_set(synthetic, request.bits, facts), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        started = time.monotonic()
        request, server_round = read_train(message.content), round_of(message.content)
        data, partition = request.with_normalisation(load_data(context)), partition_of(context)
        seed = request.seed_for(server_round, partition)
        architecture = Architecture.parse(request.architecture)
        network = architecture.build(data.sample_shape, data.num_classes, seed=seed, device=device_of(context))
        put_weights(network, unpack_weights(message.content))
        fit(network, data.inputs(), data.labels, request.recipe_for(data), seed=seed)
        facts = Facts(partition, len(data), time.monotonic() - started)
        return Message(pack_weights(weights_of(network), facts), reply_to=message)

    return app


def partition_of(context: Context) -> int:
    """The node's ``partition-id``.

    Raises:
        SettingsError: the node configuration names none.
    """
    partition = context.node_config.get(PARTITION_ID_KEY)
    if type(partition) is not int or partition < 0:
        raise SettingsError(f"node configuration needs {PARTITION_ID_KEY} ≥ 0, got {partition!r}")
    return partition


def device_of(context: Context) -> str:
    """Where the node computes."""
    return str(context.node_config.get("device", context.run_config.get("device", "cpu")))
