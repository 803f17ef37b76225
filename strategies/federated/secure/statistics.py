"""Statistics first, added up so that the server learns the total alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message

from fedcl_distill.statistics import ClassStatistics, FixedPoint, NoisyFixedPoint
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.requests import SecureStatisticsRequest, StatisticsRequest
from strategies.federated.secure.options import SecureOptions
from strategies.federated.secure.sum import Fixed, SecureSum
from strategies.federated.statistics_first import StatisticsServer


class SecureStatistics(SecureSum, StatisticsServer):
    """:class:`StatisticsServer` whose server learns no node's statistics but the total.

    A round fails with a :class:`QuorumError` where fewer nodes stay than ``threshold`` asks for, at any exchange.

    Args:
        request: what every node is asked.
        options: how many nodes must stay.
        timeout: seconds for each exchange.
        others: further arguments of :class:`StatisticsServer`.
    """

    request: StatisticsRequest

    def __init__(self, request: StatisticsRequest, *others: Any, options: SecureOptions, timeout: float) -> None:
        super().__init__(request, *others)
        self.secure(options, timeout)

    @classmethod
    def securing(cls, plain: StatisticsServer, options: SecureOptions, timeout: float) -> SecureStatistics:
        """``plain``, secured.

        Raises:
            SettingsError: its bits, or the bounds of ``options``, do not suit sums in fixed point.
        """
        bounds = {"max_samples": options.max_samples, "bounds": plain.expectation.magnitudes}
        request = plain.request.extended(SecureStatisticsRequest, **bounds)
        others = plain.expectation, plain.distil, plain.learner, plain.collector
        return cls(request, *others, options=options, timeout=timeout)

    def fixed_point(self, parties: int, threshold: int) -> FixedPoint | NoisyFixedPoint:
        """How the sums of so many nodes become words, of which so many are opened at least.

        Raises:
            SettingsError: they do not fit.
        """
        assert isinstance(self.request, SecureStatisticsRequest)
        return self.request.fixed_point(parties)

    def _length(self, fixed: Fixed) -> int:
        assert isinstance(fixed, FixedPoint | NoisyFixedPoint)
        return fixed.size(self.expectation.spec, self.expectation.domain)

    def _total(self, server_round: int, replies: Iterable[Message]) -> tuple[ClassStatistics, tuple[int, ...]]:
        fixed, total, heard, partitions = self._sum(server_round, replies)
        return self._opened(fixed, total, heard), partitions

    def _opened(self, fixed: Fixed, total: Words, heard: int) -> ClassStatistics:
        """The statistics that a total without masks says."""
        assert isinstance(fixed, FixedPoint)
        statistics = fixed.total(total, self.expectation.spec, self.expectation.domain)
        self.expectation.check(statistics)
        return statistics
