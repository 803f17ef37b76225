"""Sums at every stage; the server adds them to those it has."""

from __future__ import annotations

from typing import Literal

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import settings
from fedcl_distill.statistics import RobustSum
from strategies.federated.federated_statistics import FederatedStatistics
from strategies.federated.private_statistics import SUMMED, StatisticsServer
from strategies.federated.strategy import ServerContext
from strategies.federated_continual.memories import SumMemory
from strategies.federated_continual.strategy import MemorySize, register_strategy


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
