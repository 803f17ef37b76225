"""One request at one node: what there is to work with, and what outlives the round.

A node cannot know whether its answer arrived and was used. It keeps what belongs to the answer under the round's
number, and the next request says in which round an answer of this node was used last. What belongs to any other round
is forgotten: a round whose answer was not used has not happened, on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, Network, NetworkLimits, architectures_in
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.training import fit
from strategies.federated.requests import (
    CONFIG,
    Request,
    StatisticsRequest,
    SurrogateRequest,
    TrainRequest,
    config_of,
    round_of,
)

_USED_KEY = "used-round"
_KEPT = "kept-in-round-"


def reminding(message: Message, used_round: int) -> Message:
    """``message`` as a message for its node alone: it names the round whose answer was used last, 0 for none."""
    config = ConfigRecord({**config_of(message.content), _USED_KEY: used_round})
    content = RecordDict({**message.content, CONFIG: config})
    return Message(content, message.metadata.dst_node_id, message.metadata.message_type)


def recall(state: RecordDict, request: RecordDict) -> ArrayRecord | None:
    """What was kept in the round that ``request`` names, and nothing else stays; None if no answer was used yet.

    Raises:
        CheckpointError: it was in a round that this node knows nothing of, as after a restart.
        SettingsError: the request names no round.
    """
    used = config_of(request).get(_USED_KEY)
    if type(used) is not int:
        raise SettingsError(f"request has no {_USED_KEY}")
    name = f"{_KEPT}{used}"
    for other in [key for key in state if key.startswith(_KEPT) and key != name]:
        del state[other]
    if used == 0:
        return None
    kept = state.get(name)
    if not isinstance(kept, ArrayRecord):
        raise CheckpointError(f"this node has lost what it kept in round {used}; it cannot go on with this run")
    return kept


def keep(state: RecordDict, server_round: int, arrays: ArrayRecord) -> None:
    """Keep ``arrays`` until the server says whether the answer of ``server_round`` was used."""
    state[f"{_KEPT}{server_round}"] = arrays


Correction = Callable[[], None]


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


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:  # the loss does not depend on it
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def parameters_of(network: nn.Module) -> Tensor:
    """float32 (parameters,) on the CPU: a copy of all parameters, one after the other."""
    return parameters_to_vector(network.parameters()).detach().cpu().clone()


@dataclass(frozen=True)
class Task:
    """What a node is asked, and what it has to work with.

    Attributes:
        content: of the request.
        data: the node's own.
        partition: which part of all data these are.
        device: where to compute.
        state: what the node keeps over rounds.
        budget: what the data may release under differential privacy.
        network_limits: how large a network may be asked for.
    """

    content: RecordDict
    data: LabelledData
    partition: int
    device: str
    state: RecordDict
    budget: PrivacyBudget | None = None
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS

    @property
    def server_round(self) -> int:
        return round_of(self.content)

    def seed(self, request: Request) -> int:
        """Of this node in this round."""
        return request.seed_for(self.server_round, self.partition)

    def network(self, request: TrainRequest | SurrogateRequest) -> Network:
        """A fresh network of the architecture that is asked for."""
        architecture = Architecture.parse(request.architecture)
        self.admit(architecture)
        seed = self.seed(request)
        return architecture.build(self.data.sample_shape, self.data.num_classes, seed=seed, device=self.device)

    def admit(self, part: object) -> None:
        """Return if all networks that ``part``, an architecture or a method, names are small enough to be built here.

        Raises:
            SettingsError: one is not.
        """
        for architecture in architectures_in(part):
            self.network_limits.check(architecture, self.data.sample_shape, self.data.num_classes)

    def admit_sums(self, request: StatisticsRequest) -> None:
        """Return if the networks behind the sums, and the sums themselves, are small enough; SettingsError if not."""
        self.admit(request.specification.architecture_for(self.data.sample_shape))
        request.check_size(self.data)

    def train(self, network: Network, request: TrainRequest, correct: Correction | None = None) -> None:
        """Train ``network`` as asked on the node's data; the proximal term is FedProx's unless there is ``correct``."""
        data = request.with_normalisation(self.data)
        if correct is None and request.proximal_mu:
            correct = proximal(network, request.proximal_mu)
        train_config = request.train_config_for(data)
        fit(network, data.inputs(), data.labels, train_config, seed=self.seed(request), correct=correct)
