"""FedDM (Xiong et al. 2023): rounds of synthetic sets that stand for the clients' loss around the global model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import SettingsError
from strategies.federated.aggregation import GatherOptions, SetAggregator
from strategies.federated.answers import WEIGHTS
from strategies.federated.collector import ReplyCollector
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.requests import CONFIG, SURROGATE, SurrogateRequest
from strategies.federated.weights import check_weight_bits, pack_network


@dataclass(frozen=True)
class SurrogateOptions(GatherOptions):
    """Settings of FedDM.

    Attributes:
        radius: of the ball around the global model in which clients' sets must stand for their data; 5 in the paper.
        server_radius: the farthest that a round may move the global model; 0 for no bound.
        weight_bits: in which the global model is sent to clients: 8, 16 or 32.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    radius: float = 5.0
    server_radius: float = 0.0
    weight_bits: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight_bits(self.weight_bits)
        if not 0 <= self.radius < math.inf:
            raise SettingsError(f"radius must be finite and not negative, got {self.radius}")
        if not 0 <= self.server_radius < math.inf:
            raise SettingsError(f"server_radius must be finite and not negative, got {self.server_radius}")


class FedDM(OneShotUnion):
    """Sends the global model, collects synthetic sets made around it, and trains it further on their union.

    Args:
        request: what every node is asked.
        gathering, learner, collector: as for :class:`OneShotUnion`.
        server_radius: the farthest that a round may move the global model; None for no bound.
    """

    kind = SURROGATE

    def __init__(
        self,
        request: SurrogateRequest,
        gathering: SetAggregator,
        learner: Learner,
        collector: ReplyCollector,
        server_radius: float | None = None,
    ) -> None:
        super().__init__(request, gathering, learner, collector)
        self.asked_around = request
        self.server_radius = server_radius
        self._global = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send the model and the request to every node."""
        self._global = arrays
        weights = pack_network(self.learner.with_weights(arrays), self.asked_around.weight_bits)
        return self.ask(grid, RecordDict({CONFIG: self.request.to_record(server_round), WEIGHTS: weights}))

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Unite the sets and train the model that nodes were sent on the union.

        Raises:
            QuorumError: too few sets could be used.
        """
        gathered = self.gather(server_round, replies)
        weights = self.learner.learn(
            gathered.synthetic,
            server_round,
            sample_weights=gathered.weights,
            start=self._global,
            radius=self.server_radius,
        )
        return weights, gathered.metrics
