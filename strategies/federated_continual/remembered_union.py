"""Synthetic sets at every stage, and one distilled memory of all earlier ones."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, Message, MetricRecord

from strategies.federated.aggregation import SetAggregator
from strategies.federated.collector import ReplyCollector
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.requests import DistilRequest
from strategies.federated_continual.memories import SetMemory, balanced


class RememberedUnion(OneShotUnion):
    """One-shot learning at every stage; what is learned from holds a memory of all earlier stages, too.

    Args:
        request, gathering, learner, collector: as for :class:`OneShotUnion`.
        keeper: the memory.
        balance: let every class be seen alike often in training, however many samples it has.
    """

    def __init__(
        self,
        request: DistilRequest,
        gathering: SetAggregator,
        learner: Learner,
        collector: ReplyCollector,
        keeper: SetMemory,
        *,
        balance: bool = True,
    ) -> None:
        super().__init__(request, gathering, learner, collector)
        self.keeper = keeper
        self.balance = balance

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sets, train a fresh model on them and on the memory, and let the memory take them in.

        Raises:
            QuorumError: too few sets could be used.
            DivergenceError: distillation or training diverged.
        """
        gathered = self.gather(server_round, replies)
        whole = self.keeper.beside(gathered)
        weights = balanced(whole) if self.balance else whole.weights
        model = self.learner.learn(whole.synthetic, server_round, sample_weights=weights)
        self.keeper.add(gathered)
        return model, gathered.metrics
