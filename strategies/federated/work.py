"""How a node does what it is asked: one function for each kind of request, from the task to the answer's content."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import RecordDict
from torch.nn.utils import vector_to_parameters

from fedcl_distill.engine import finished
from fedcl_distill.errors import CheckpointError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import encode_noisy, encode_statistics
from strategies.federated.answers import (
    CONTROL,
    SUMS,
    UPDATE,
    WEIGHTS,
    pack_payload,
    pack_set,
    pack_update,
    pack_vector,
    unpack_update,
    unpack_vector,
    unpack_weights,
)
from strategies.federated.compression import Bytes, UpdateCodec, Vector, read_codec
from strategies.federated.node import Task, keep, parameters_of, recall, shifted
from strategies.federated.requests import (
    CONFIG,
    DISTIL_CONFIG,
    TrainRequest,
    read_compressed,
    read_distil,
    read_private_statistics,
    read_statistics,
    read_surrogate,
    read_train,
)
from strategies.federated.weights import put_weights, unpack_network, weights_of

Work = Callable[[Task], RecordDict]


def distil(task: Task) -> RecordDict:
    """A synthetic set of the node's data."""
    return _distilled(task, CONFIG)


def sum_features(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data."""
    request = read_statistics(task.content)
    task.admit_sums(request)
    return pack_payload(SUMS, encode_statistics(request.measure(task.data, task.device), request.bits))


def sum_privately(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data, with noise."""
    request = read_private_statistics(task.content)
    task.admit_sums(request)
    noisy = request.release(task.data, task.budget, device=task.device)
    return pack_payload(SUMS, encode_noisy(noisy, request.bits))


def distil_around(task: Task) -> RecordDict:
    """A synthetic set made on networks around the server's model (FedDM)."""
    request = read_surrogate(task.content).fitted_to(task.data)
    network = task.network(request)
    task.admit(request.distiller)
    unpack_network(network, unpack_weights(task.content), request.weight_bits)
    synthetic = request.distil_around(network, task.data, seed=task.seed(request), device=task.device)
    return pack_set(finished(synthetic), request.bits)


def train(task: Task) -> RecordDict:
    """The server's model after local training (FedAvg, FedProx and others)."""
    request = read_train(task.content)
    network = task.network(request)
    put_weights(network, unpack_weights(task.content))
    task.train(network, request)
    return RecordDict({WEIGHTS: weights_of(network)})


def train_with_control(task: Task) -> RecordDict:
    """SCAFFOLD's client (Karimireddy et al. 2020, Algorithm 1, option II).

    The paper's option II takes (x − y) / (K η) for the mean gradient of K steps of plain SGD. With momentum, a gradient
    moves the model by more than one step's worth; (x − y) / (η Σ aₖ) with the weights aₖ of
    :func:`effective_steps` is the mean then, and the paper's formula without momentum.
    """
    request = read_train(task.content)
    network = task.network(request)
    put_weights(network, unpack_weights(task.content))
    start = parameters_of(network)
    control = torch.from_numpy(unpack_vector(task.content.get(CONTROL), len(start)).copy())
    kept = recall(task.state, task.content)
    own = torch.zeros_like(start) if kept is None else torch.from_numpy(unpack_vector(kept, len(start)).copy())
    task.train(network, request, shifted(network, control - own))
    moved = start - parameters_of(network)
    renewed = own - control + moved / (request.learning_rate * effective_steps(_steps(task, request), request.momentum))
    keep(task.state, task.server_round, pack_vector(renewed.numpy()))
    return RecordDict({WEIGHTS: weights_of(network), CONTROL: pack_vector((renewed - own).numpy())})


def train_compressed(task: Task) -> RecordDict:
    """What local training changes, coded as asked; what coding loses waits for the next round, if the codec says so."""
    request = read_compressed(task.content)
    download, upload = read_codec(request.download), read_codec(request.upload)
    network = task.network(request)
    count = parameters_of(network).numel()
    start = download.decode(unpack_update(task.content, WEIGHTS, download.size(count)), count)
    vector_to_parameters(torch.from_numpy(start.copy()).to(task.device), network.parameters())
    task.train(network, request)
    update = parameters_of(network).numpy() - start
    payload = _with_feedback(task, update, upload, task.seed(request))
    return RecordDict({UPDATE: pack_update(payload)})


def train_and_distil(task: Task) -> RecordDict:
    """A model of the node's own, and a synthetic set."""
    request = read_train(task.content)
    network = task.network(request)
    task.train(network, request)
    return RecordDict({WEIGHTS: weights_of(network), **_distilled(task, DISTIL_CONFIG)})


def effective_steps(steps: int, momentum: float) -> float:
    """Σ aₖ for k = 1 … ``steps``, aₖ = 1 + β + … + βᵏ⁻¹: how often, in steps of plain SGD, gradients move the model.

    SGD with momentum β from rest moves the model by −η Σ aₖ gₖ, the last gradient having a₁ (Wang et al. 2020,
    FedNova).
    """
    geometric = momentum * (1 - momentum**steps) / (1 - momentum)
    return (steps - geometric) / (1 - momentum)


def _distilled(task: Task, config: str) -> RecordDict:
    request = read_distil(task.content, config).fitted_to(task.data)
    task.admit(request.distiller)
    synthetic = finished(request.distil(task.data, seed=task.seed(request), device=task.device))
    return pack_set(synthetic, request.bits)


def _steps(task: Task, request: TrainRequest) -> int:
    return request.epochs * -(-len(task.data) // request.batch_size)


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
