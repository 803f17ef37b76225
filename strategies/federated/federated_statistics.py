"""Sums, once: what is summed, what follows, how they add up, what the server sees, and with how much noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import publicly_scaled
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.statistics import (
    ClassStatistics,
    RobustSum,
    StatisticsDistiller,
    StatisticsExpectation,
    StatisticsSpec,
)
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.private_statistics import (
    NODES,
    PRIVATELY_SUMMED,
    SUMMED,
    PrivacyOptions,
    StatisticsServer,
    Total,
    private_statistics,
)
from strategies.federated.requests import StatisticsRequest
from strategies.federated.secure import (
    SECURE_STEPS,
    PrivateSecureStatistics,
    SecureOptions,
    SecureStatistics,
)
from strategies.federated.strategy import ClientStep, FederatedStrategy, ServerContext, register_strategy


@register_strategy("statistics")
@settings
class FederatedStatistics(FederatedStrategy):
    """Every node sends class-wise sums of features; the server adds them up and distils once.

    See :mod:`strategies.federated.private_statistics`; no node optimises anything.

    Attributes:
        features: what is summed; its seed is the run's.
        distiller: how the server makes samples of the sums.
        images_per_class: of these samples.
        steps, seconds: when that stops, whichever comes first; the distiller's own where both are None.
        bits: a sum is sent in.
        adding: how sums add up, where some may lie.
        aggregation: whether the server sees a single node's sums, or the total alone.
        privacy: how much noise the sums get.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, or parts do not fit together.

    Example:
        >>> FederatedStatistics(StatisticsSpec(views=20), privacy=PrivacyOptions(epsilon=1.0))
    """

    features: StatisticsSpec = StatisticsSpec()
    distiller: StatisticsDistiller = StatisticsDistiller()
    images_per_class: Count = 10
    steps: Count | None = None
    seconds: Annotated[float, Range(gt=0)] | None = None
    bits: Literal[8, 16, 32] = 8
    adding: RobustSum = RobustSum()
    aggregation: SecureOptions = SecureOptions()
    privacy: PrivacyOptions = PrivacyOptions()

    client_steps: ClassVar[tuple[ClientStep, ...]] = (SUMMED, PRIVATELY_SUMMED, *SECURE_STEPS)

    def __post_init__(self) -> None:
        secure, epsilon = self.aggregation.secure, self.privacy.epsilon
        if self.features.seed != StatisticsSpec().seed:
            raise SettingsError("the run's seed draws the features: leave their seed out")
        if self.adding != RobustSum() and (secure or epsilon):
            raise SettingsError(
                "a server that sees the total alone (secure), or only noisy sums (epsilon), cannot hold clients "
                "against each other (centre, count_share): choose one of these"
            )
        if epsilon and secure != (self.privacy.trust == NODES):
            raise SettingsError(
                "nodes that trust each other with shares of the noise (trust=nodes) add up in secret (secure=true), "
                "others do not"
            )

    def server(self, context: ServerContext) -> StatisticsServer:
        context.require_one_round("statistics")
        return self.adding_by(self.adding.add_up, context)

    def scaled(self, test: LabelledData) -> LabelledData:
        """The server's data on a scale that nobody measured, where records are to be protected.

        Raises:
            SettingsError: they are to be, and such data have no public scale.
        """
        return publicly_scaled(test) if self.privacy.epsilon else test

    def adding_by(self, total: Total, context: ServerContext) -> StatisticsServer:
        """The server's side, which distils what ``total`` makes of the nodes' sums.

        Raises:
            SettingsError: the settings do not fit the data.
        """
        privacy, options = self.privacy, self.aggregation
        plain = StatisticsServer(
            self.request(context),
            self.expectation(context),
            self._distil(context),
            context.learner,
            context.collector,
            total,
        )
        if privacy.epsilon and not options.secure:
            return private_statistics(plain, privacy)
        if privacy.epsilon:
            return PrivateSecureStatistics.protecting(
                plain, privacy.target, options, context.reply_seconds, disjoint=privacy.disjoint_clients
            )
        return SecureStatistics.securing(plain, options, context.reply_seconds) if options.secure else plain

    def spec(self, seed: int) -> StatisticsSpec:
        """What nodes sum in a run of this seed."""
        return replace(self.features, seed=derive_seed(seed, "statistics"))

    def request(self, context: ServerContext) -> StatisticsRequest:
        """What nodes are asked."""
        return StatisticsRequest(
            seed=context.seed,
            statistics=self.spec(context.seed).settings(),
            bits=self.bits,
        )

    def expectation(self, context: ServerContext) -> StatisticsExpectation:
        """What sums must be."""
        return StatisticsExpectation(self.spec(context.seed), context.test.spec, context.slack)

    def _distil(self, context: ServerContext) -> _Distil:
        budget = Budget.if_given(self.steps, self.seconds)
        return _Distil(self.distiller, self.images_per_class, context.seed, budget, context.device)


@settings
class _Distil:
    """Makes the synthetic set of a run from its statistics."""

    distiller: StatisticsDistiller
    images_per_class: int
    seed: int
    budget: Budget | None
    device: str

    def __call__(self, statistics: ClassStatistics) -> SyntheticSet:
        return self.distiller.distil(
            statistics,
            self.images_per_class,
            seed=derive_seed(self.seed, "distil statistics"),
            budget=self.budget,
            device=self.device,
            absent_classes="skip",
        )
