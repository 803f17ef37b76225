"""SCAFFOLD (Karimireddy et al. 2020, Algorithm 1): control variates take the drift out of local training.

Each node i knows cᵢ, an estimate of its own gradient; the server knows c, their mean. Local steps go along
g − cᵢ + c. Up and down, a message holds a model and a vector of its size: twice FedAvg's bytes.

Two choices. The paper weighs all nodes alike; here models and variates count by their node's samples, as in FedAvg, so
that both minimise the same loss. And nodes may train with momentum, by which they estimate their gradient as described
at :func:`train_with_control`; momentum 0 is the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Message, RecordDict

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network, check_weights_alone
from fedcl_distill.settings import Positive, settings
from strategies.federated.aggregation import Answer, ReplyCollector
from strategies.federated.answers import (
    CONTROL,
    WEIGHTS,
    State,
    pack_vector,
    put_weights,
    tensor_of,
    unpack_vector,
    unpack_weights,
    weights_of,
)
from strategies.federated.fedavg import Averaging, ValidatedFedAvgM
from strategies.federated.local_training import TrainRequest, fit_locally, parameters_of, shifted
from strategies.federated.requests import Task, keep, recall, reminding
from strategies.federated.strategy import ClientStep, ServerContext, register_strategy


def train_with_control(task: Task) -> RecordDict:
    """SCAFFOLD's client (Karimireddy et al. 2020, Algorithm 1, option II).

    The paper's option II takes (x − y) / (K η) for the mean gradient of K steps of plain SGD. With momentum, a gradient
    moves the model by more than one step's worth; (x − y) / (η Σ aₖ) with the weights aₖ of
    :func:`effective_steps` is the mean then, and the paper's formula without momentum.
    """
    request = TrainRequest.of(task.content)
    network = task.network(request, request.architecture)
    put_weights(network, unpack_weights(task.content))
    start = parameters_of(network)
    control = torch.from_numpy(unpack_vector(task.content.get(CONTROL), len(start)).copy())
    kept = recall(task.state, task.content)
    own = torch.zeros_like(start) if kept is None else torch.from_numpy(unpack_vector(kept, len(start)).copy())
    fit_locally(task, network, request, shifted(network, control - own))
    moved = start - parameters_of(network)
    renewed = own - control + moved / (request.learning_rate * effective_steps(_steps(task, request), request.momentum))
    keep(task.state, task.server_round, pack_vector(renewed.numpy()))
    return RecordDict({WEIGHTS: weights_of(network), CONTROL: pack_vector((renewed - own).numpy())})


def effective_steps(steps: int, momentum: float) -> float:
    """Σ aₖ for k = 1 … ``steps``, aₖ = 1 + β + … + βᵏ⁻¹: how often, in steps of plain SGD, gradients move the model.

    SGD with momentum β from rest moves the model by −η Σ aₖ gₖ, the last gradient having a₁ (Wang et al. 2020,
    FedNova).
    """
    geometric = momentum * (1 - momentum**steps) / (1 - momentum)
    return (steps - geometric) / (1 - momentum)


def _steps(task: Task, request: TrainRequest) -> int:
    return request.epochs * -(-len(task.data) // request.batch_size)


CONTROLLED = ClientStep("scaffold", train_with_control)


@register_strategy("scaffold")
@settings
class Scaffold(Averaging):
    """FedAvg with control variates, at twice the bytes: see this module.

    Attributes:
        server_learning_rate: the paper's η_g.
    """

    server_learning_rate: Positive = 1.0

    client_steps = (CONTROLLED,)

    def server(self, context: ServerContext) -> ScaffoldServer:
        return ScaffoldServer(*self.parts(context), server_learning_rate=self.server_learning_rate)


class ScaffoldServer(ValidatedFedAvgM):
    """SCAFFOLD on the server; ``server_learning_rate`` is the paper's η_g.

    A node's variate changes on both sides or on neither: each request says in which round the node's answer was used
    last, and the node goes on from the variate of that round, whatever it computed since.

    Args:
        request, template, collector: as for :class:`ValidatedFedAvg`; the learning rate of local training is constant.
        flower: further arguments of Flower's strategy; no ``client_share``, for variates are summed over rounds by the
            samples that nodes say they have.

    Raises:
        SettingsError: ``client_share`` is below 1.
    """

    def __init__(self, request: TrainRequest, template: Network, collector: ReplyCollector, **flower: Any) -> None:
        super().__init__(request, template, collector, **flower)
        if self.client_share < 1:
            raise SettingsError("SCAFFOLD cannot bound what one client counts for (client_share)")
        check_weights_alone(template, "SCAFFOLD")
        self._sum: npt.NDArray[np.float64] = np.zeros(parameters_of(template).numel())
        self._examples: dict[int, int] = {}

    @property
    def control(self) -> npt.NDArray[np.float32]:
        """float32 (parameters,): c, the mean of all nodes' variates by samples; those never heard have 0.

        Such nodes are taken to hold as many samples as the others do on average.
        """
        if not self._examples:
            return self._sum.astype(np.float32)
        known = len(self._examples)
        total = sum(self._examples.values()) / known * max(known, self.collector.nodes)
        return (self._sum / total).astype(np.float32)

    def state(self) -> State:
        """FedAvgM's, and the sum of nodes' variates with the weights they have in it."""
        return {**super().state(), "sum": tensor_of(self._sum), "examples": dict(self._examples)}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        super().restore(state)
        self._sum, self._examples = state["sum"].numpy(), dict(state["examples"])

    def forget_nodes(self) -> None:
        """All variates are 0 again, on both sides."""
        self._sum, self._examples = np.zeros_like(self._sum), {}

    def _addressed(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        content = RecordDict({**message.content, CONTROL: pack_vector(self.control)})
        return reminding(Message(content, node, CONTROLLED.kind), self.collector.used.get(node, 0))

    def _read(self, content: RecordDict) -> RecordDict:
        answer = super()._read(content)
        unpack_vector(content.get(CONTROL), len(self._sum))
        return RecordDict({**answer, CONTROL: content[CONTROL]})

    def _take(self, answers: Sequence[Answer[RecordDict]]) -> None:
        for answer in answers:
            change = unpack_vector(answer.value.pop(CONTROL), len(self._sum))
            # Always the weight that the node had first, or its sum of changes would not be its variate any more.
            self._sum += self._examples.setdefault(answer.node, answer.facts.examples) * change.astype(np.float64)
