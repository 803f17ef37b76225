"""FedDM (Xiong et al. 2023): rounds of synthetic sets that stand for the clients' loss around the global model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.engine import Distiller, Engine, finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import AroundNetwork
from fedcl_distill.networks import Network
from fedcl_distill.settings import NonNegative, settings
from strategies.federated.aggregation import ReplyCollector, SetAggregator
from strategies.federated.answers import WEIGHTS, pack_network, pack_set, unpack_network, unpack_weights
from strategies.federated.distillation import DistilRequest
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShot, OneShotUnion
from strategies.federated.requests import CONFIG, Task
from strategies.federated.strategy import ClientStep, ServerContext, register_strategy


@dataclass(frozen=True, kw_only=True)
class SurrogateRequest(DistilRequest):
    """Distil your data as networks around the one you receive see them (Xiong et al. 2023, FedDM).

    Attributes:
        architecture: of the network, as text for ``Architecture.parse``.
        radius: how far around it; see :class:`~fedcl_distill.network_sources.AroundNetwork`.
        weight_bits: in which its weights are sent: 8, 16 or 32.
    """

    architecture: str
    radius: float = 5.0
    weight_bits: int = 32

    def around(self, distiller: Distiller, network: Network) -> Engine:
        """``distiller`` on networks around ``network``.

        Raises:
            SettingsError: it looks through no networks, or needs ones trained on the real data.
        """
        if not isinstance(distiller, Engine):
            raise SettingsError(f"method {self.method!r} looks through no networks, which feddm needs")
        return replace(distiller, networks=AroundNetwork(network, self.radius))


def distil_around(task: Task) -> RecordDict:
    """A synthetic set made on networks around the server's model."""
    request = SurrogateRequest.of(task.content).fitted_to(task.data, task.methods)
    network = task.network(request, request.architecture)
    distiller = request.distiller(task.methods)
    task.admit(distiller)
    unpack_network(network, unpack_weights(task.content), request.weight_bits)
    around = request.around(distiller, network)
    synthetic = request.distil(task.data, seed=task.seed(request), device=task.device, distiller=around)
    return pack_set(finished(synthetic).with_spec(value_range=task.value_range), request.bits)


SURROGATE = ClientStep("surrogate", distil_around)


@register_strategy("feddm")
@settings
class FedDM(OneShot):
    """Synthetic sets, every round, made around the global model; DM then matches class scores, too, as FedDM does.

    Attributes:
        radius: of the ball around the global model in which clients' sets must stand for their data; 5 in the paper.
        server_radius: the farthest that a round may move the global model; 0 for no bound.
        weight_bits: in which the global model is sent to clients.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, or the method looks through no networks.
    """

    radius: NonNegative = 5.0
    server_radius: NonNegative = 0.0
    weight_bits: Literal[8, 16, 32] = 32

    client_steps = (SURROGATE,)
    needs_model = True

    def server(self, context: ServerContext) -> FedDMServer:
        asked = self._matching_logits().request(context.seed)
        request = asked.extended(
            SurrogateRequest,
            architecture=context.learner.architecture_text,
            radius=self.radius,
            weight_bits=self.weight_bits,
        )
        request.around(request.distiller(self.own_methods), context.learner.fresh())
        aggregator = self.aggregator(context)
        return FedDMServer(request, aggregator, context.learner, context.collector, self.server_radius or None)

    def _matching_logits(self) -> FedDM:
        """With the weight that FedDM gives to class scores, where the method is DM by name and says nothing of it."""
        name, given, own = self._named()
        if name != "dm" or own:
            return self
        return replace(self, distiller={"name": name, "logits_weight": 1.0, **given})


class FedDMServer(OneShotUnion):
    """Sends the global model, collects synthetic sets made around it, and trains it further on their union.

    Args:
        request: what every node is asked.
        aggregator, learner, collector: as for :class:`OneShotUnion`.
        server_radius: the farthest that a round may move the global model; None for no bound.
    """

    def __init__(
        self,
        request: SurrogateRequest,
        aggregator: SetAggregator,
        learner: Learner,
        collector: ReplyCollector,
        server_radius: float | None = None,
    ) -> None:
        super().__init__(request, aggregator, learner, collector, SURROGATE)
        self.asked_around = request
        self.server_radius = server_radius
        self._global = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Send the model and the request to every node."""
        self._global = arrays
        weights = pack_network(self.learner.with_weights(arrays), self.asked_around.weight_bits)
        return self.collector.ask(
            grid, RecordDict({CONFIG: self.request.to_record(server_round), WEIGHTS: weights}), self.step.kind
        )

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Unite the sets and train the model that nodes were sent on the union.

        Raises:
            QuorumError: too few sets could be used.
        """
        gathered = self.collect(server_round, replies)
        weights = self.learner.learn(
            gathered.synthetic,
            server_round,
            sample_weights=gathered.weights,
            start=self._global,
            radius=self.server_radius,
        )
        return weights, gathered.metrics
