"""Statistics first, added up so that the server learns the total alone, and that with noise: no server is trusted."""

from __future__ import annotations

from dataclasses import asdict

from fedcl_distill.privacy import PrivacyTarget
from fedcl_distill.statistics import ClassStatistics, NoisyFixedPoint, NoisyStatistics, Shares
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.private_statistics import guaranteed, of_total
from strategies.federated.requests import NoisyWordsRequest
from strategies.federated.secure.options import SecureOptions
from strategies.federated.secure.records import NOISED
from strategies.federated.secure.statistics import SecureStatistics
from strategies.federated.secure.sum import Fixed
from strategies.federated.statistics_first import StatisticsServer


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
