"""One-shot learning at every stage, with a memory of all earlier ones at the server: of synthetic sets, or of sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from flwr.app import ArrayRecord, Message, MetricRecord

from fedcl_distill.engine import Budget, CoreSet, Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Natural, settings
from fedcl_distill.statistics import RobustSum
from strategies.continual.distilled_memory import DistilledMemory
from strategies.federated.distillation import Distillation
from strategies.federated.federated_statistics import FederatedStatistics
from strategies.federated.one_shot import OneShot, OneShotUnion
from strategies.federated.private_statistics import SUMMED, StatisticsServer
from strategies.federated.strategy import ServerContext
from strategies.federated_continual.memories import MemorySize, SetMemory, SumMemory, balanced, register_strategy


@register_strategy("distilled")
@settings
class RememberedUnion(MemorySize, OneShot):
    """Synthetic sets at every stage; the server distils a memory of them.

    Attributes:
        memory_method: which distils or selects; "" takes the clients' own, with its settings.
        memory_steps: of each distillation; 0 takes the clients' ``steps`` and ``seconds``.
        reserve: give each class its final size from the start, so that it is distilled once.
        redistil: where classes shrink, distil them again; core sets drop their last samples in any case.
        balance: let every class be seen alike often when the model is trained.
    """

    memory_method: str | Mapping[str, Any] | Distiller = ""
    memory_steps: Natural = 0
    reserve: bool = True
    redistil: bool = True
    balance: bool = True

    def server(self, context: ServerContext) -> RememberedUnionServer:
        context.require_one_round("distilled, at each stage,")
        request = self.request(context.seed)
        union = request, self.aggregator(context), context.learner, context.collector
        return RememberedUnionServer(*union, keeper=self._memory(context), balance=self.balance)

    def _memory(self, context: ServerContext) -> SetMemory:
        distiller = Distillation(self.memory_method).method if self.memory_method else self.method
        seconds = None if self.memory_steps else self.seconds
        memory = DistilledMemory(
            self.memory_budget(context.test, self.bits),
            self.bits,
            distiller=distiller,
            budget=Budget.if_given(self.memory_steps or self.steps, seconds),
            seed=derive_seed(context.seed, "memory"),
            redistil=self.redistil and not isinstance(distiller, CoreSet),
        )
        return SetMemory(memory, context.test, self.reserve, derive_seed(context.seed, "memory"))


class RememberedUnionServer(OneShotUnion):
    """One-shot learning at every stage; what is learned from holds a memory of all earlier stages, too.

    Args:
        union: arguments of :class:`OneShotUnion`.
        keeper: the memory.
        balance: let every class be seen alike often in training, however many samples it has.
    """

    def __init__(self, *union: Any, keeper: SetMemory, balance: bool = True) -> None:
        super().__init__(*union)
        self.keeper = keeper
        self.balance = balance

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Check the sets, train a fresh model on them and on the memory, and let the memory take them in.

        Raises:
            QuorumError: too few sets could be used.
            DivergenceError: distillation or training diverged.
        """
        gathered = self.collect(server_round, replies)
        whole = self.keeper.beside(gathered)
        weights = balanced(whole) if self.balance else whole.weights
        model = self.learner.learn(whole.synthetic, server_round, sample_weights=weights)
        self.keeper.add(gathered)
        return model, gathered.metrics


@register_strategy("statistics")
@settings
class RememberedStatistics(MemorySize, FederatedStatistics):
    """Sums at every stage; the server adds them to those it has, and distils the total.

    Attributes:
        memory_bits: of a kept value.

    Raises:
        SettingsError: on construction, if a value does not fit; sums with noise, in secret or without outliers are for
            a single stage.
    """

    memory_bits: Literal[8, 16, 32] = 32

    client_steps = (SUMMED,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.privacy.epsilon or self.aggregation.secure or self.adding != RobustSum():
            raise SettingsError(
                "a memory of sums adds up plain ones: leave epsilon, secure, centre and count_share out"
            )

    def server(self, context: ServerContext) -> RememberedStatisticsServer:
        context.require_one_round("statistics, at each stage,")
        keeper = SumMemory(self.expectation(context), self.memory_budget(context.test, self.bits), self.memory_bits)
        plain = self.adding_by(keeper.add, context)
        parts = plain.request, plain.expectation, plain.distil, plain.learner, plain.collector, plain.total
        return RememberedStatisticsServer(*parts, keeper=keeper)


class RememberedStatisticsServer(StatisticsServer):
    """Distils the total of all sums that were ever sent.

    Args:
        parts: arguments of :class:`StatisticsServer`.
        keeper: holds the total.
    """

    def __init__(self, *parts: object, keeper: SumMemory) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        self.keeper = keeper
