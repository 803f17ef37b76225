"""Continual strategies by name."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from avalanche.training.supervised import Cumulative, JointTraining

from fedcl_distill.engine import CoreSet
from fedcl_distill.errors import SettingsError
from fedcl_distill.selection import Herding
from strategies.continual.memories.named import bytes_beside_scores, exemplars, memory_bytes, named_memory
from strategies.continual.replay.dark import DERpp
from strategies.continual.replay.exemplars import ICaRLLoss, NearestMean, NetworkEmbedding
from strategies.continual.replay.gdumb import GDumb
from strategies.continual.replay.interference import MIR
from strategies.continual.replay.losses import AsymmetricCrossEntropy, DarkExperience
from strategies.continual.replay.plugin import Replay
from strategies.continual.replay.regularised import AGEM, EWC, LwF, Source
from strategies.continual.setup import Plan, Setup

Builder = Callable[..., Plan]


def naive(setup: Setup) -> Plan:
    """Fine-tuning: the floor."""
    return Plan(setup.loss)


def joint(setup: Setup) -> Plan:
    """All experiences at once: the ceiling."""
    return Plan(setup.loss, template=JointTraining, sample_bytes=setup.like.sample_bytes, online=False)


def cumulative(setup: Setup) -> Plan:
    """All experiences so far, each time: a memory without bounds, and the forgetting that more classes alone bring."""
    return Plan(setup.loss, template=Cumulative, sample_bytes=setup.like.sample_bytes, online=False)


def reservoir(setup: Setup) -> Plan:
    """Replay of uniformly random real samples."""
    return _replay(setup, "reservoir")


def balanced(setup: Setup, *, final_shares: bool = False) -> Plan:
    """Replay of random real samples, equally many of each class."""
    return _replay(setup, "balanced", final_shares=final_shares)


def herding(setup: Setup, *, final_shares: bool = False) -> Plan:
    """Replay of real samples chosen by herding."""
    return _replay(setup, "herding", final_shares=final_shares)


def distilled(setup: Setup, *, final_shares: bool = False) -> Plan:
    """Replay of distilled samples."""
    return _replay(setup, "distilled", online=False, final_shares=final_shares)


def hybrid(setup: Setup, *, real_share: float = 0.5) -> Plan:
    """Replay of real samples, in a share of the bytes, and distilled ones."""
    return _replay(setup, "hybrid", online=False, real_share=real_share)


def condensed(setup: Setup, *, buffer_size: int = 32, buffer_share: float = 0.5) -> Plan:
    """Replay of samples that are condensed as they pass."""
    return _replay(setup, "condensed", buffer_size=buffer_size, buffer_share=buffer_share)


def gdumb(setup: Setup, *, memory: str = "balanced") -> Plan:
    """Training from scratch on the memory alone."""
    replay = GDumb(setup.memory(memory), setup.like, setup.network, **setup.replaying)
    return Plan(setup.loss, replay, online=False)


def icarl(setup: Setup) -> Plan:
    """Exemplars herded in the model's embedding, distillation of old scores, nearest means."""
    settings, embedding = setup.settings, NetworkEmbedding(setup.network)
    if settings.scenario == "domain":
        raise SettingsError("icarl keeps old classes as they were, so they must not come back in another domain")
    memory = exemplars(settings, memory_bytes(settings, setup.like), CoreSet(Herding(embedding)))
    replay = Replay(memory, setup.like, soft=False, **setup.replaying)
    loss = ICaRLLoss()

    def nearest_mean() -> Any:
        held = memory.recall()
        return setup.network if held is None else NearestMean(setup.network, held)

    return Plan(loss, replay, (loss,), classifier=nearest_mean, online=False)


def der(setup: Setup, *, memory: str = "reservoir", alpha: float = 0.5, beta: float = 1.0) -> Plan:
    """DER++: remembered samples shall get the scores they once had."""
    left = bytes_beside_scores(setup.settings, setup.like, memory)
    replay = DERpp(named_memory(memory, setup.settings, left), setup.like, bits=setup.settings.bits, **setup.replaying)
    return Plan(DarkExperience(replay, setup.loss, alpha=alpha, beta=beta), replay, online=_takes_batches(memory))


def er_ace(setup: Setup, *, memory: str = "reservoir") -> Plan:
    """Current samples compete among current classes alone."""
    replay = Replay(setup.memory(memory), setup.like, early=True, **setup.replaying)
    return Plan(AsymmetricCrossEntropy(replay, setup.loss), replay, online=_takes_batches(memory))


def mir(setup: Setup, *, memory: str = "reservoir", candidates: int = 5) -> Plan:
    """Replay of what the current batch is about to spoil."""
    if candidates < 1:
        raise SettingsError(f"candidates must be at least 1, got {candidates}")
    replay = Replay(setup.memory(memory), setup.like, retrieval=MIR(candidates), **setup.replaying)
    return Plan(setup.loss, replay, online=_takes_batches(memory))


def a_gem(setup: Setup, *, memory: str = "reservoir", sample_size: int = 64) -> Plan:
    """No step may raise the loss of what is remembered."""
    if sample_size < 1:
        raise SettingsError(f"sample_size must be at least 1, got {sample_size}")
    source = Source(setup.memory(memory), setup.like, **setup.replaying)
    return Plan(setup.loss, source, (AGEM(source, sample_size),), online=_takes_batches(memory))


def ewc(setup: Setup, *, strength: float = 100.0) -> Plan:
    """Weights that mattered are held where they were."""
    return Plan(setup.loss, keepers=(EWC(strength),), online=False)


def lwf(setup: Setup, *, strength: float = 1.0, temperature: float = 2.0) -> Plan:
    """The model before this experience is its teacher."""
    if temperature <= 0:
        raise SettingsError(f"temperature must be positive, got {temperature}")
    return Plan(setup.loss, keepers=(LwF(strength, temperature),), online=False)


REGISTRY: dict[str, Builder] = {
    "naive": naive,
    "joint": joint,
    "cumulative": cumulative,
    "reservoir": reservoir,
    "balanced": balanced,
    "herding": herding,
    "distilled": distilled,
    "hybrid": hybrid,
    "condensed": condensed,
    "gdumb": gdumb,
    "icarl": icarl,
    "der++": der,
    "er-ace": er_ace,
    "mir": mir,
    "a-gem": a_gem,
    "ewc": ewc,
    "lwf": lwf,
}


def build_plan(setup: Setup) -> Plan:
    """The strategy that the settings name.

    Raises:
        SettingsError: the strategy or one of its settings is unknown, of another type, out of range, or does not work
            in an online stream.
    """
    settings = setup.settings
    if settings.strategy not in REGISTRY:
        raise SettingsError(f"unknown strategy {settings.strategy!r}; known: {', '.join(REGISTRY)}")
    builder = REGISTRY[settings.strategy]
    plan = builder(setup, **_checked(settings.strategy, builder, settings.strategy_settings))
    if settings.online and not plan.online:
        raise SettingsError(f"{settings.strategy!r} must know where experiences end; an online stream does not say it")
    return plan if plan.replay is None else replace(plan, finetuning=setup.finetuning(plan.replay))


def _replay(setup: Setup, memory: str, *, online: bool = True, **settings: Any) -> Plan:
    named = ",".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    held = setup.memory(f"{memory}:{named}")
    return Plan(setup.loss, Replay(held, setup.like, **setup.replaying), online=online)


def _takes_batches(memory: str) -> bool:
    """Distilling anew at every mini-batch would be no online learning."""
    return memory.partition(":")[0] not in ("distilled", "hybrid")


def _checked(strategy: str, builder: Builder, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: one.default for name, one in inspect.signature(builder).parameters.items() if name != "setup"}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingsError(
            f"strategy {strategy!r} has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return {name: _value(f"{strategy}: {name}", value, known[name]) for name, value in given.items()}


def _value(name: str, value: Any, default: Any) -> Any:
    """``value``, if it is of the default's type and, as a number, finite and not negative."""
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise SettingsError(f"{name} must be of type {type(default).__name__}, got {value!r}")
    if type(value) in (int, float) and not 0 <= value < math.inf:
        raise SettingsError(f"{name} must be finite and not negative, got {value}")
    return value
