"""Federated continual strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from flwr.serverapp.strategy import Strategy

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, CoreSet
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import Domain, StatisticsDistiller, StatisticsExpectation, StatisticsSpec
from strategies.continual.distilled_memory import DistilledMemory
from strategies.continual.memory_registry import named_memory
from strategies.federated.aggregation import GatherOptions
from strategies.federated.collector import ReplyCollector
from strategies.federated.fedavg import ValidatedFedAvg
from strategies.federated.learner import Learner
from strategies.federated.own_settings import takes
from strategies.federated.registry import Plan, build_named
from strategies.federated.statistics_first import FederatedStatistics
from strategies.federated_continual.memories import Keeper, Nothing, SetMemory, SumMemory
from strategies.federated_continual.remembered_union import RememberedUnion
from strategies.federated_continual.replay import ReplayFedAvg, ReplayRequest
from strategies.federated_continual.settings import FederatedContinualSettings


@dataclass(frozen=True)
class Built:
    """A strategy for the rounds of every stage.

    Attributes:
        strategy: a Flower strategy.
        keeper: what the server keeps beside the model.
        client_bytes: what each partition said it keeps itself; filled as the run goes on.
    """

    strategy: Strategy
    keeper: Keeper = field(default_factory=Nothing)
    client_bytes: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SetMemoryOptions:
    """How the server's memory of synthetic sets is made.

    Attributes:
        memory_method: which distils or selects; "" takes the clients' own, with its settings.
        memory_steps: of each distillation; 0 takes the clients' ``distil_steps`` and ``distil_seconds``.
        reserve: give each class its final size from the start, so that it is distilled once.
        redistil: where classes shrink, distil them again; core sets drop their last samples in any case.
        balance: let every class be seen alike often when the model is trained.
    """

    memory_method: str = ""
    memory_steps: int = 0
    reserve: bool = True
    redistil: bool = True
    balance: bool = True


@takes(GatherOptions, SetMemoryOptions)
def distilled(plan: Plan, options: GatherOptions, memory: SetMemoryOptions) -> Built:
    """Synthetic sets at every stage; the server distils a memory of them."""
    settings = _one_round(plan)
    if memory.memory_steps < 0:
        raise SettingsError(f"memory_steps must not be negative, got {memory.memory_steps}")
    own = not memory.memory_method
    distiller = build_method(memory.memory_method or settings.method, **(settings.method_settings if own else {}))
    seconds = None if memory.memory_steps else settings.distil_seconds
    keeper = SetMemory(
        DistilledMemory(
            settings.memory_budget(plan.test),
            settings.bits,
            distiller=distiller,
            budget=Budget.if_given(memory.memory_steps or settings.distil_steps, seconds),
            seed=derive_seed(settings.seed, "memory"),
            redistil=memory.redistil and not isinstance(distiller, CoreSet),
        ),
        plan.test,
        memory.reserve,
        derive_seed(settings.seed, "memory"),
    )
    return Built(RememberedUnion(*plan.sets(options), keeper, balance=memory.balance), keeper)


@dataclass(frozen=True)
class SumMemoryOptions:
    """How the server keeps sums.

    Attributes:
        memory_bits: of a kept value: 8, 16 or 32.
    """

    memory_bits: int = 32


@takes(StatisticsSpec, StatisticsDistiller, SumMemoryOptions, without=("seed",))
def statistics(plan: Plan, spec: StatisticsSpec, distiller: StatisticsDistiller, memory: SumMemoryOptions) -> Built:
    """Sums at every stage; the server adds them to those it has."""
    settings = _one_round(plan)
    spec = replace(spec, seed=derive_seed(settings.seed, "statistics"))
    expectation = StatisticsExpectation(spec, Domain.of(plan.test), settings.slack)
    keeper = SumMemory(expectation, settings.memory_budget(plan.test), memory.memory_bits)
    strategy = FederatedStatistics.of(settings, plan.test, spec, distiller, plan.learner, plan.collector, keeper.add)
    return Built(strategy, keeper)


def fedavg(plan: Plan) -> Built:
    """Models, fine-tuned on each experience."""
    return Built(ValidatedFedAvg(*plan.averaging))


@dataclass(frozen=True)
class ReplayOptions:
    """How nodes replay.

    Attributes:
        memory: which each node keeps: one of ``strategies.continual.MEMORIES``.
        replay_ratio: remembered samples for each new one.
        balanced: give every class of a batch the same weight in the loss.
    """

    memory: str = "reservoir"
    replay_ratio: float = 1.0
    balanced: bool = True


@takes(ReplayOptions)
def fedavg_replay(plan: Plan, options: ReplayOptions) -> Built:
    """Models, trained on each experience and on what every node remembers of its earlier ones."""
    settings = _settings(plan)
    if settings.local_augment:
        raise SettingsError("fedavg-replay trains by Avalanche, which does not augment; leave local_augment out")
    if not 0 < options.replay_ratio < float("inf"):
        raise SettingsError(f"replay_ratio must be positive and finite, got {options.replay_ratio}")
    request, template, collector = plan.averaging
    replaying = ReplayRequest(
        **asdict(request),
        **asdict(options),
        memory_bytes=settings.memory_budget(plan.test),
        memory_settings={
            name: getattr(settings, name)
            for name in ("method", "method_settings", "bits", "distil_steps", "distil_seconds")
        },
        rounds=settings.rounds,
    )
    named_memory(options.memory, replaying.local(0, settings.device), replaying.memory_bytes)  # typing errors
    strategy = ReplayFedAvg(replaying, template, collector)
    return Built(strategy, client_bytes=strategy.client_bytes)


BUILDERS: Mapping[str, Callable[..., Built]] = {
    "distilled": distilled,
    "statistics": statistics,
    "fedavg": fedavg,
    "fedavg-replay": fedavg_replay,
}


def build(
    settings: FederatedContinualSettings, test: LabelledData, learner: Learner, collector: ReplyCollector
) -> Built:
    """The strategy that ``settings`` name.

    Raises:
        SettingsError: it is unknown, or the settings do not fit it or the data.
    """
    return build_named(BUILDERS, Plan(settings, test, learner, collector))


def _settings(plan: Plan) -> FederatedContinualSettings:
    assert isinstance(plan.settings, FederatedContinualSettings)
    return plan.settings


def _one_round(plan: Plan) -> FederatedContinualSettings:
    settings = _settings(plan)
    if settings.rounds != 1:
        raise SettingsError(f"{settings.strategy} has one round a stage, {settings.rounds} were asked for")
    return settings
