"""One-shot federated learning by dataset distillation.

The server asks every node once to distil its data. Each answers with a synthetic set. The server checks the sets,
unites them, and trains the global model on the union (the common core of Xiong et al. 2023, FedDM, at one round, and
of Song et al. 2023, FedD3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.engine import Budget, Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.merging import Merger, MergeTree
from fedcl_distill.registry import Registry
from fedcl_distill.robust import Agreement, Judge
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Natural, NonNegative, Range, settings
from fedcl_distill.synthetic import Expectation
from strategies.federated.aggregation import AggregatedSets, Defence, ReplyCollector, SetAggregator, room_for
from strategies.federated.answers import State
from strategies.federated.distillation import Distillation, DistilRequest, distilled
from strategies.federated.internals import log
from strategies.federated.learner import Learner
from strategies.federated.requests import CONFIG
from strategies.federated.strategy import (
    ClientStep,
    FederatedStrategy,
    LearnsFromSets,
    ServerContext,
    register_strategy,
)

DEFENCES: Registry[Judge] = Registry("defence", "fedcl_distill.defences")
"""What judges the sets of a round before they are used."""
DEFENCES.register("agreement")(Agreement)

DISTIL = ClientStep("distil", distilled)


@register_strategy("one-shot")
@settings
class OneShot(Distillation, FederatedStrategy):
    """Synthetic sets, once: see this module.

    Attributes:
        merge_to: images per class of one set into which all are merged as they come; 0 keeps the union.
        merge_at: images per class that are held before they are merged.
        merge_method: which merges, with its defaults but for the architecture of clients; "" takes the clients' own.
        merge_steps: of each merge; 0 takes the clients' ``steps`` and ``seconds``.
        size_exponent: a client's set counts as the number of its real samples to this power; 0: as its samples.
        defence: judges sets before they are used, such as "agreement" or "agreement:tolerance=0.6"; "" believes all.
        client_share: the most, in (0, 1], that one client may count for of any class.
        disjoint_clients: whether you state that no record is at two clients; privacy guarantees add up otherwise.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.

    Example:
        >>> run_server(grid, OneShot("herding", images_per_class=2), test=test, network="convnet:width=16")
    """

    merge_to: Natural = 0
    merge_at: Count = 100
    merge_method: str | Mapping[str, Any] | Distiller = ""
    merge_steps: Natural = 0
    size_exponent: NonNegative = 0.0
    defence: str | Mapping[str, Any] | Judge = ""
    client_share: Annotated[float, Range(gt=0, le=1)] = 1.0
    disjoint_clients: bool = False

    client_steps = (DISTIL,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_to > self.merge_at:
            raise SettingsError(f"merge_to must be at most merge_at, got {self.merge_to} and {self.merge_at}")
        _ = self._merging_by, self._judge

    def server(self, context: ServerContext) -> OneShotUnion:
        context.require_one_round("one-shot")
        request = self.request(context.seed)
        return OneShotUnion(request, self.aggregator(context), context.learner, context.collector)

    def aggregator(self, context: ServerContext) -> SetAggregator:
        """How the sets of one round become one.

        Raises:
            SettingsError: the method cannot store samples of this shape, or merging does not fit.
        """
        test = context.test
        room = room_for(self.request(context.seed), self.method, test.sample_shape, test.num_classes)
        expectation = Expectation(
            test.spec, slack=context.slack, max_samples=room.samples, max_samples_per_class=room.samples_per_class
        )
        judge = self._judge
        seed = derive_seed(context.seed, "defence")
        defence = None if judge is None else Defence(judge, seed, context.device)
        tree = self._tree(context) if self.merge_to else None
        how = self.size_exponent, tree, defence, self.client_share, self.disjoint_clients
        return SetAggregator(expectation, room.limits, *how)

    def _tree(self, context: ServerContext) -> MergeTree:
        seconds = None if self.merge_steps else self.seconds
        budget = Budget.if_given(self.merge_steps or self.steps, seconds)
        merger = Merger(self._merging_by, self.merge_to, budget, context.device, self.disjoint_clients)
        return MergeTree(merger, self.merge_at * context.test.num_classes, derive_seed(context.seed, "merging"))

    @property
    def _merging_by(self) -> Distiller:
        return Distillation(self.merge_method).method if self.merge_method else self.method

    @property
    def _judge(self) -> Judge | None:
        return DEFENCES.build(self.defence) if self.defence else None


class OneShotUnion(LearnsFromSets):
    """The server of :class:`OneShot`: collects each node's synthetic set and unites them.

    Args:
        request: what every node is asked.
        aggregator: how their sets are checked and put together.
        learner: trains the global model.
        collector: waits for nodes and turns bad answers away.
        step: the kind of message that asks.
    """

    def __init__(
        self,
        request: DistilRequest,
        aggregator: SetAggregator,
        learner: Learner,
        collector: ReplyCollector,
        step: ClientStep = DISTIL,
    ) -> None:
        super().__init__(learner, collector)
        self.request = request
        self.aggregator = aggregator
        self.step = step

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask every node to distil its data; the model stays here."""
        return self.collector.ask(grid, self._question(server_round), self.step.kind)

    def collect(self, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """All valid sets as one, in the order of partitions, which is kept, too; QuorumError if there are too few."""
        return self._keep(self.aggregator.gather(self.collector, server_round, replies))

    def state(self) -> State:
        """What was gathered, and how often sets were merged: this names the next draws."""
        merging = self.aggregator.merging
        return {**super().state(), "merges": 0 if merging is None else merging.merges}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        super().restore(state)
        if self.aggregator.merging is not None:
            self.aggregator.merging.merges = state["merges"]

    def summary(self) -> None:
        """Log what nodes are asked."""
        log.info("every node distils by %s, size %s", self.request.method, self.request.size)

    def _question(self, server_round: int) -> RecordDict:
        return RecordDict({CONFIG: self.request.to_record(server_round)})

    def _keep(self, gathered: AggregatedSets) -> AggregatedSets:
        provenance = {
            "union_of": list(gathered.partitions),
            "method": self.request.method,
            "seed": self.request.seed,
        }
        self.gathered = replace(gathered, synthetic=replace(gathered.synthetic, provenance=provenance))
        return self.gathered
