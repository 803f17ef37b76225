"""How clients train a model on their data: settings on the server, a request on the wire, and what a node does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from flwr.app import RecordDict
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from fedcl_distill.augmentation import NoAugmentation, augmentation_for
from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Network
from fedcl_distill.settings import Count, Momentum, NonNegative, Positive, settings
from fedcl_distill.training import TrainConfig, fit
from strategies.federated.answers import WEIGHTS, put_weights, unpack_weights, weights_of
from strategies.federated.requests import Request, Task


@dataclass(frozen=True, kw_only=True)
class TrainRequest(Request):
    """Train the model you receive on your data by plain SGD, and send it back.

    Attributes:
        architecture: of the model, as text for ``Architecture.parse``.
        epochs, learning_rate, momentum, weight_decay, batch_size: of SGD; the rate is constant.
        augment: whether to augment as suits the data (DSA for images).
        proximal_mu: of FedProx, under the name that Flower's strategy sends it by; 0 for no proximal term.
    """

    architecture: str
    epochs: int = 1
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    augment: bool = False
    proximal_mu: float = 0.0

    def train_config_for(self, data: LabelledData) -> TrainConfig:
        return TrainConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            schedule="constant",
            augmentation=augmentation_for(data) if self.augment else NoAugmentation(),
        )


@settings
class LocalTraining:
    """How every client trains: SGD at a constant rate.

    Attributes:
        epochs: over the client's data, in each round.
        learning_rate, momentum, weight_decay, batch_size: of SGD.
        augment: augment as suits the data (DSA for images).

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    epochs: Count = 1
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 32
    augment: bool = False

    def request(self, seed: int, architecture: str) -> TrainRequest:
        """What clients are asked; ``seed`` is the run's."""
        return TrainRequest(
            seed=seed,
            architecture=architecture,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            augment=self.augment,
        )


Correction = Callable[[], None]
"""Changes the gradients of a network before a step of SGD."""


def train(task: Task) -> RecordDict:
    """The server's model after local training (FedAvg, FedProx and others)."""
    request = TrainRequest.of(task.content)
    network = task.network(request, request.architecture)
    put_weights(network, unpack_weights(task.content))
    fit_locally(task, network, request)
    return RecordDict({WEIGHTS: weights_of(network)})


def fit_locally(task: Task, network: Network, request: TrainRequest, correct: Correction | None = None) -> None:
    """Train ``network`` as asked on the node's data; FedProx's term pulls it where there is no other correction."""
    data = task.data
    if correct is None and request.proximal_mu:
        correct = proximal(network, request.proximal_mu)
    fit(network, data.inputs(), data.labels, request.train_config_for(data), seed=task.seed(request), correct=correct)


def proximal(network: nn.Module, mu: float) -> Correction:
    """Adds the gradient of μ/2 · ‖w − w₀‖², w₀ being the weights now (Li et al. 2020, FedProx)."""
    start = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def correct() -> None:
        for parameter, anchor in zip(network.parameters(), start, strict=True):
            _gradient_of(parameter).add_(parameter - anchor, alpha=mu)

    return correct


def shifted(network: nn.Module, shift: Tensor) -> Correction:
    """Adds the same ``shift``, float32 (parameters,), in every step."""
    parameters = list(network.parameters())
    parts = torch.split(shift.to(parameters[0].device), [parameter.numel() for parameter in parameters])

    @torch.no_grad()
    def correct() -> None:
        for parameter, part in zip(parameters, parts, strict=True):
            _gradient_of(parameter).add_(part.view_as(parameter))

    return correct


def parameters_of(network: nn.Module) -> Tensor:
    """float32 (parameters,) on the CPU: a copy of all parameters, one after the other."""
    return parameters_to_vector(network.parameters()).detach().cpu().clone()


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:  # the loss does not depend on it
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
