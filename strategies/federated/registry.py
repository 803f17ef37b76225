"""Federated strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from flwr.serverapp.strategy import Strategy

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import RobustSum, StatisticsDistiller, StatisticsSpec
from strategies.federated.aggregation import GatherOptions, SetAggregator, gathering_for
from strategies.federated.averaging import (
    ValidatedBulyan,
    ValidatedFedAdam,
    ValidatedFedAvgM,
    ValidatedFedProx,
    ValidatedKrum,
    ValidatedMedian,
    ValidatedTrimmedMean,
)
from strategies.federated.collector import ReplyCollector
from strategies.federated.compressed import CompressedFedAvg
from strategies.federated.dynafed import DynaFed, DynaFedOptions, Replayer
from strategies.federated.fedavg import ValidatedFedAvg
from strategies.federated.feddm import FedDM, SurrogateOptions
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.one_shot_ensemble import OneShotEnsemble
from strategies.federated.own_settings import checked
from strategies.federated.own_settings import takes as _takes
from strategies.federated.private_statistics import NODES, PrivacyOptions, private_statistics_first
from strategies.federated.requests import CompressedRequest, DistilRequest, TrainRequest
from strategies.federated.scaffold import Scaffold
from strategies.federated.secure import PrivateSecureStatistics, SecureOptions, SecureStatistics
from strategies.federated.settings import FederatedSettings
from strategies.federated.statistics_first import FederatedStatistics

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What every strategy is made from: the run's settings, the server's test data, its network, its collector."""

    settings: FederatedSettings
    test: LabelledData
    learner: Learner
    collector: ReplyCollector

    @property
    def averaging(self) -> tuple[TrainRequest, Any, ReplyCollector]:
        """The arguments of an averaging strategy."""
        return self.settings.train_request(self.test), self.learner.fresh(), self.collector

    def sets(self, options: GatherOptions) -> tuple[DistilRequest, SetAggregator, Learner, ReplyCollector]:
        """The arguments of a strategy that collects synthetic sets."""
        gathering = gathering_for(self.settings, options, self.test)  # a typing error shall not cost a round
        return self.settings.distil_request(self.test), gathering, self.learner, self.collector

    def with_one_round(self) -> Plan:
        """The same plan; SettingsError where more rounds are asked for."""
        if self.settings.rounds != 1:
            raise SettingsError(f"{self.settings.strategy} has one round, {self.settings.rounds} were asked for")
        return self

    def with_epochs(self, epochs: int) -> Plan:
        """With local training of so many epochs."""
        return replace(self, settings=replace(self.settings, local_epochs=epochs))


@_takes(GatherOptions)
def one_shot(plan: Plan, options: GatherOptions) -> OneShotUnion:
    """Synthetic sets, once."""
    return OneShotUnion(*plan.with_one_round().sets(options))


@_takes(SurrogateOptions)
def feddm(plan: Plan, options: SurrogateOptions) -> FedDM:
    """Synthetic sets, every round, made around the global model; DM then matches class scores, too, as FedDM does."""
    settings = plan.settings
    if settings.method == "dm":
        settings = replace(settings, method_settings={"logits_weight": 1.0, **settings.method_settings})
    request = settings.surrogate_request(plan.test, options.radius, options.weight_bits)
    request.around(plan.learner.fresh())
    gathering = gathering_for(settings, options, plan.test)
    return FedDM(request, gathering, plan.learner, plan.collector, options.server_radius or None)


@_takes(DynaFedOptions)
def dynafed(plan: Plan, options: DynaFedOptions) -> DynaFed:
    """Models, every round, finetuned on a set that the server distils from their path."""
    settings = plan.settings
    if options.collect_rounds >= settings.rounds:
        raise SettingsError(
            f"dynafed collects models of {options.collect_rounds} rounds and then goes on, "
            f"but there are {settings.rounds}; take more rounds or fewer collect_rounds"
        )
    replayer = Replayer(options, plan.test, settings.images_per_class, settings.seed, settings.device)
    return DynaFed(settings.train_request(plan.test), plan.learner, plan.collector, replayer)


def one_shot_average(plan: Plan, *, epochs: int = 50, client_share: float = 1.0) -> ValidatedFedAvg:
    """Models, once, each trained for ``epochs``."""
    return ValidatedFedAvg(*plan.with_one_round().with_epochs(epochs).averaging, client_share=client_share)


def one_shot_ensemble(plan: Plan, *, epochs: int = 50, weighting: str = "classes") -> OneShotEnsemble:
    """Models, each trained for ``epochs``, and synthetic sets, once."""
    plan = plan.with_one_round().with_epochs(epochs)
    return OneShotEnsemble(plan.settings.train_request(plan.test), *plan.sets(GatherOptions()), weighting=weighting)


def fedavg(plan: Plan, *, client_share: float = 1.0) -> ValidatedFedAvg:
    """Models, every round; none counts for more than ``client_share`` of all, whatever its client says it has."""
    return ValidatedFedAvg(*plan.averaging, client_share=client_share)


def fedprox(plan: Plan, *, mu: float = 0.01, client_share: float = 1.0) -> ValidatedFedProx:
    """FedAvg whose nodes are pulled towards the global model; ``mu`` weighs the proximal term."""
    _require(mu >= 0, f"mu must not be negative, got {mu}")
    return ValidatedFedProx(*plan.averaging, proximal_mu=mu, client_share=client_share)


def fedavgm(
    plan: Plan, *, server_learning_rate: float = 1.0, server_momentum: float = 0.9, client_share: float = 1.0
) -> ValidatedFedAvgM:
    """FedAvg whose server moves with momentum."""
    _require(server_learning_rate > 0, f"server_learning_rate must be positive, got {server_learning_rate}")
    _require(0 <= server_momentum < 1, f"server_momentum must be in [0, 1), got {server_momentum}")
    return ValidatedFedAvgM(
        *plan.averaging,
        client_share=client_share,
        server_learning_rate=server_learning_rate,
        server_momentum=server_momentum,
    )


def fedadam(
    plan: Plan,
    *,
    server_learning_rate: float = 0.03,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    tau: float = 0.001,
    client_share: float = 1.0,
) -> ValidatedFedAdam:
    """FedAvg whose server moves by Adam; ``tau`` bounds how large a step for a small gradient gets."""
    _require(server_learning_rate > 0 and tau > 0, "server_learning_rate and tau must be positive")
    _require(0 <= beta_1 < 1 and 0 <= beta_2 < 1, f"beta_1 and beta_2 must be in [0, 1), got {beta_1} and {beta_2}")
    return ValidatedFedAdam(
        *plan.averaging,
        client_share=client_share,
        eta=server_learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        tau=tau,
    )


def krum(plan: Plan, *, malicious: int = 1, selected: int = 1) -> ValidatedKrum:
    """FedAvg over the ``selected`` models nearest to others; ``malicious`` clients are reckoned with."""
    clients = plan.settings.clients
    _require(
        malicious >= 0 and clients >= 2 * malicious + 3, f"krum needs at least 2 · malicious + 3 clients, got {clients}"
    )
    _require(1 <= selected <= clients - malicious, f"selected must be in [1, {clients - malicious}], got {selected}")
    return ValidatedKrum(*plan.averaging, num_malicious_nodes=malicious, num_nodes_to_select=selected)


def bulyan(plan: Plan, *, malicious: int = 1) -> ValidatedBulyan:
    """Krum, several times over, then a trimmed mean of each weight; ``malicious`` clients are reckoned with."""
    clients = plan.settings.clients
    _require(
        malicious >= 0 and clients >= 4 * malicious + 3,
        f"bulyan needs at least 4 · malicious + 3 clients, got {clients}",
    )
    return ValidatedBulyan(*plan.averaging, num_malicious_nodes=malicious)


def trimmed_mean(plan: Plan, *, trim: float = 0.3) -> ValidatedTrimmedMean:
    """FedAvg by the mean of each weight without the share ``trim`` of the clients on either side; all count alike."""
    _require(0 <= trim < 0.5, f"trim must be in [0, 0.5), got {trim}")
    return ValidatedTrimmedMean(*plan.averaging, beta=trim)


def median(plan: Plan) -> ValidatedMedian:
    """FedAvg by the median of each weight; all clients count alike."""
    return ValidatedMedian(*plan.averaging)


def scaffold(plan: Plan, *, server_learning_rate: float = 1.0) -> Scaffold:
    """FedAvg with control variates, at twice the bytes."""
    _require(server_learning_rate > 0, f"server_learning_rate must be positive, got {server_learning_rate}")
    momentum = plan.settings.local_momentum
    _require(0 <= momentum < 1, f"local_momentum must be in [0, 1) for SCAFFOLD, got {momentum}")
    return Scaffold(*plan.averaging, server_learning_rate=server_learning_rate)


def topk(
    plan: Plan,
    *,
    fraction: float = 0.01,
    value_bits: int = 16,
    error_feedback: bool = True,
    download_bits: int = 32,
    client_share: float = 1.0,
) -> CompressedFedAvg:
    """FedAvg with the largest values of each update; the model goes down in ``download_bits`` (32, 8, 4 or 2)."""
    feedback = "true" if error_feedback else "false"
    upload = f"topk:fraction={fraction},value_bits={value_bits},error_feedback={feedback}"
    return _compressed(plan, upload, download_bits, client_share)


def quantised(plan: Plan, *, bits: int = 8, download_bits: int = 32, client_share: float = 1.0) -> CompressedFedAvg:
    """FedAvg with updates of 8, 4 or 2 bits a value; the model goes down in ``download_bits`` (32, 8, 4 or 2)."""
    return _compressed(plan, f"quantised:bits={bits}", download_bits, client_share)


@_takes(StatisticsSpec, StatisticsDistiller, RobustSum, SecureOptions, PrivacyOptions, without=("seed",))
def statistics_first(
    plan: Plan,
    spec: StatisticsSpec,
    distiller: StatisticsDistiller,
    adding: RobustSum,
    options: SecureOptions,
    privacy: PrivacyOptions,
) -> FederatedStatistics:
    """Sums, once: what is summed, what follows, how they add up, what the server sees, with how much noise."""
    _require(
        adding == RobustSum() or not (options.secure or privacy.epsilon),
        "a server that sees the total alone (secure), or only noisy sums (epsilon), cannot hold clients against each "
        "other (centre, count_share): choose one of these",
    )
    _require(
        not privacy.epsilon or options.secure == (privacy.trust == NODES),
        "nodes that trust each other with shares of the noise (trust=nodes) add up in secret (secure=true), others "
        "do not",
    )
    spec = replace(spec, seed=derive_seed(plan.settings.seed, "statistics"))
    settings, timeout = plan.with_one_round().settings, plan.settings.reply_seconds
    if privacy.epsilon and not options.secure:
        return private_statistics_first(settings, plan.test, spec, distiller, privacy, plan.learner, plan.collector)
    plain = FederatedStatistics.of(settings, plan.test, spec, distiller, plan.learner, plan.collector, adding.add_up)
    if privacy.epsilon:
        return PrivateSecureStatistics.protecting(
            plain, privacy.target, options, timeout, disjoint=privacy.disjoint_clients
        )
    return SecureStatistics.securing(plain, options, timeout) if options.secure else plain


def _compressed(plan: Plan, upload: str, download_bits: int, client_share: float) -> CompressedFedAvg:
    request, template, collector = plan.averaging
    download = "plain" if download_bits == 32 else f"quantised:bits={download_bits}"
    request = CompressedRequest(**asdict(request), download=download, upload=upload)
    return CompressedFedAvg(request, template, collector, client_share=client_share)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "one-shot": one_shot,
    "one-shot-average": one_shot_average,
    "feddm": feddm,
    "dynafed": dynafed,
    "one-shot-ensemble": one_shot_ensemble,
    "fedavg": fedavg,
    "fedprox": fedprox,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "krum": krum,
    "bulyan": bulyan,
    "trimmed-mean": trimmed_mean,
    "median": median,
    "scaffold": scaffold,
    "topk": topk,
    "quantised": quantised,
    "statistics": statistics_first,
}


def list_strategies() -> list[str]:
    """Names that ``FederatedSettings.strategy`` takes."""
    return sorted(STRATEGIES)


def build_strategy(
    settings: FederatedSettings, test: LabelledData, learner: Learner, collector: ReplyCollector
) -> Strategy:
    """The strategy that ``settings`` name.

    Raises:
        SettingsError: it is unknown, or the settings do not fit it.
    """
    return build_named(STRATEGIES, Plan(settings, test, learner, collector))


def build_named(builders: Mapping[str, Callable[..., T]], plan: Plan) -> T:
    """What the plan's settings name among ``builders``; SettingsError as for :func:`build_strategy`."""
    name, given = plan.settings.strategy, plan.settings.strategy_settings
    if name not in builders:
        raise SettingsError(f"unknown strategy {name!r}; known: {', '.join(sorted(builders))}")
    return builders[name](plan, **checked(name, builders[name], given))


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SettingsError(otherwise)
