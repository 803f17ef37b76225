"""One request at one node, and the training that most requests have in common."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from fedcl_distill.data import LabelledData
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, Network, NetworkLimits, architectures_in
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.training import fit
from strategies.federated.messages.requests import Request, StatisticsRequest, SurrogateRequest, TrainRequest, round_of
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
