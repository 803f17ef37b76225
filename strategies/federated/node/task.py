"""One request at one node, and the training that most requests have in common."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.training import fit
from strategies.federated.messages.requests import Request, SurrogateRequest, TrainRequest, round_of
from strategies.federated.node.corrections import Correction, proximal


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
    """

    content: RecordDict
    data: LabelledData
    partition: int
    device: str
    state: RecordDict
    budget: PrivacyBudget | None = None

    @property
    def server_round(self) -> int:
        return round_of(self.content)

    def seed(self, request: Request) -> int:
        """Of this node in this round."""
        return request.seed_for(self.server_round, self.partition)

    def network(self, request: TrainRequest | SurrogateRequest) -> Network:
        """A fresh network of the architecture that is asked for."""
        architecture = Architecture.parse(request.architecture)
        seed = self.seed(request)
        return architecture.build(self.data.sample_shape, self.data.num_classes, seed=seed, device=self.device)

    def train(self, network: Network, request: TrainRequest, correct: Correction | None = None) -> None:
        """Train ``network`` as asked on the node's data; the proximal term is FedProx's unless there is ``correct``."""
        data = request.with_normalisation(self.data)
        if correct is None and request.proximal_mu:
            correct = proximal(network, request.proximal_mu)
        recipe = request.recipe_for(data)
        fit(network, data.inputs(), data.labels, recipe, seed=self.seed(request), correct=correct)
