"""Statistics first under differential privacy: noise at every node, or once at a server that all trust.

Shares of noise at every node, for a server that sees the total alone, are in :mod:`strategies.federated.secure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Literal

from flwr.app import RecordDict

from fedcl_distill.privacy import NoiseSource, PrivacyTarget, for_group
from fedcl_distill.privacy.accounting import DELTA, KEY, Delta, Guarantee
from fedcl_distill.settings import NonNegative, settings
from fedcl_distill.statistics import (
    ClassStatistics,
    NoisyExpectation,
    NoisyStatistics,
    Shares,
    add_up_noisy,
    decode_noisy,
    encode_noisy,
    with_noise,
)
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.answers import SUMS, pack_payload, unpack_payload
from strategies.federated.collector import ReplyCollector
from strategies.federated.learner import Learner
from strategies.federated.node import Task
from strategies.federated.requests import PrivateStatisticsRequest, StatisticsRequest
from strategies.federated.statistics_first import Distil, StatisticsServer
from strategies.federated.strategy import ClientStep

NODE, NODES, SERVER = "node", "nodes", "server"


@settings
class PrivacyOptions:
    """How private statistics shall be.

    Attributes:
        epsilon: of every record; 0 for statistics without noise.
        delta: in (0, 1).
        trust: "node": every node adds noise to its own sums and trusts no one. "server": nodes send exact sums, and
            the server adds noise once to the total; all trust it, and get less noise for the same ε. "nodes": every
            node adds a share of that noise under secure aggregation, and trusts the others to do so, but no server.
        disjoint_clients: whether you state that no record is at two nodes. Otherwise one may be at all of them, and the
            guarantee is what holds then.
    """

    epsilon: NonNegative = 0.0
    delta: Delta = DELTA
    trust: Literal["node", "nodes", "server"] = "node"
    disjoint_clients: bool = False

    @property
    def target(self) -> PrivacyTarget:
        return PrivacyTarget(self.epsilon, self.delta)


def sum_privately(task: Task) -> RecordDict:
    """Class-wise sums of features of the node's data, with noise."""
    request = task.read(PrivateStatisticsRequest)
    task.admit_sums(request)
    noisy = request.release(task.data, task.budget, device=task.device)
    return pack_payload(SUMS, encode_noisy(noisy, request.bits))


PRIVATELY_SUMMED = ClientStep("private", sum_privately, protected=True, discreet=True)


class NodeNoiseStatistics(StatisticsServer):
    """Nodes send noisy sums; neither a node's size nor its seconds are told, for both hang on its data."""

    kind = PRIVATELY_SUMMED.kind

    def __init__(
        self,
        request: StatisticsRequest,
        expectation: NoisyExpectation,
        distil: Distil,
        learner: Learner,
        collector: ReplyCollector,
        disjoint: bool = False,
    ) -> None:
        self.disjoint = disjoint
        self.noisy_expectation = expectation
        self.noisy: NoisyStatistics | None = None
        super().__init__(request, expectation.plain, distil, learner, collector)

    def _added(self, values: Sequence[NoisyStatistics]) -> ClassStatistics:  # type: ignore[override]
        self.noisy = add_up_noisy(values, disjoint=self.disjoint)
        return self.noisy.as_statistics()

    def _distilled(self, statistics: ClassStatistics) -> SyntheticSet:
        assert self.noisy is not None
        return guaranteed(self.distil(statistics), self.noisy.guarantee)

    def _read(self, content: RecordDict) -> NoisyStatistics:  # type: ignore[override]
        noisy = decode_noisy(unpack_payload(content, SUMS, self.noisy_expectation.limits))
        self.noisy_expectation.check(noisy)
        return noisy


def private_statistics(plain: StatisticsServer, options: PrivacyOptions) -> StatisticsServer:
    """``plain`` with noise, at every node or at the server.

    Raises:
        SettingsError: the features are not bounded, or the settings do not fit the data.
    """
    spec, domain = plain.expectation.spec, plain.expectation.domain
    expectation = NoisyExpectation(spec, domain, Shares(), options.target)
    if options.trust == NODE:
        noise = {"epsilon": options.epsilon, "delta": options.delta, "shares": asdict(Shares())}
        request = plain.request.extended(PrivateStatisticsRequest, **noise)
        parts = plain.distil, plain.learner, plain.collector
        return NodeNoiseStatistics(request, expectation, *parts, options.disjoint_clients)

    def distil(exact: ClassStatistics) -> SyntheticSet:
        noisy = with_noise(exact, options.target, Shares(), NoiseSource.fresh())
        claim = of_total(noisy.guarantee, 1 if options.disjoint_clients else len(plain.collector.partitions))
        return guaranteed(plain.distil(noisy.as_statistics()), claim)

    return StatisticsServer(plain.request, plain.expectation, distil, plain.learner, plain.collector)


def of_total(guarantee: Guarantee | None, copies: int) -> Guarantee | None:
    """Of one noisy total in which a record may be so many times, once for each node that holds it."""
    return None if guarantee is None else for_group(guarantee, max(copies, 1))


def guaranteed(synthetic: SyntheticSet, guarantee: Guarantee | None) -> SyntheticSet:
    """``synthetic`` with ``guarantee`` in its provenance, if there is one."""
    if guarantee is None:
        return synthetic
    return replace(synthetic, provenance={**synthetic.provenance, KEY: guarantee.as_record()})
