"""Statistics first, added up so that the server learns the total alone; with noise on it if asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from flwr.app import Message

from fedcl_distill.privacy import PrivacyTarget
from fedcl_distill.statistics import ClassStatistics, FixedPoint, NoisyFixedPoint, NoisyStatistics, Shares
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.private_statistics import StatisticsServer, guaranteed, of_total
from strategies.federated.requests import NoisyWordsRequest, SecureStatisticsRequest, StatisticsRequest
from strategies.federated.secure.crypto import NOISED, SecureOptions
from strategies.federated.secure.sum import Fixed, SecureSum


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


class PrivateSecureStatistics(SecureStatistics):
    """:class:`SecureStatistics` where every node adds a share of noise, so that the total has that of one release.

    The guarantee is against whoever sees what the server sees, as long as nodes do as agreed: each node that does not
    add its share, or tells it to the server, takes one from the total.

    Attributes:
        noisy: the total, once the round is over.
    """

    action: str = NOISED
    noisy: NoisyStatistics | None = None
    disjoint: bool = False
    _heard: int = 0

    @classmethod
    def protecting(
        cls,
        plain: StatisticsServer,
        target: PrivacyTarget,
        options: SecureOptions,
        timeout: float,
        *,
        disjoint: bool = False,
    ) -> PrivateSecureStatistics:
        """``plain``, secured and with noise; ``disjoint`` where whoever calls states that no record is at two nodes.

        Raises:
            SettingsError: its bits, or the bounds of ``options``, do not suit sums in fixed point with so much noise,
                or its features are not bounded.
        """
        request = plain.request.extended(
            NoisyWordsRequest,
            epsilon=target.epsilon,
            delta=target.delta,
            shares=asdict(Shares()),
            max_samples=options.max_samples,
        )
        others = plain.expectation, plain.distil, plain.learner, plain.collector
        secured = cls(request, *others, options=options, timeout=timeout)
        secured.disjoint = disjoint
        return secured

    def fixed_point(self, parties: int, threshold: int) -> NoisyFixedPoint:
        """As that of :class:`SecureStatistics`, with noise."""
        assert isinstance(self.request, NoisyWordsRequest)
        fixed = self.request.fixed_point(parties, threshold)
        fixed.guarantee(self.expectation.spec, self.expectation.domain)
        return fixed

    def _opened(self, fixed: Fixed, total: Words, heard: int) -> ClassStatistics:
        assert isinstance(fixed, NoisyFixedPoint)
        self._heard = heard
        self.noisy = fixed.total(total, heard, self.expectation.spec, self.expectation.domain)
        return self.noisy.as_statistics()

    def _distilled(self, statistics: ClassStatistics) -> SyntheticSet:
        assert self.noisy is not None
        copies = 1 if self.disjoint else self._heard
        return guaranteed(self.distil(statistics), of_total(self.noisy.guarantee, copies))
