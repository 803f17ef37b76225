"""Continual strategies by name, and what they are put together from."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from avalanche.training.supervised import Cumulative, JointTraining, Naive
from torch import Tensor, nn

from fedcl_distill.augmentation import Augmentation, NoAugmentation, augmentation_for
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import CoreSet
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Herding
from fedcl_distill.training import TrainConfig
from strategies.continual.losses import ERACE, DERppLoss
from strategies.continual.memory import Memory
from strategies.continual.memory_registry import bytes_beside_scores, exemplars, memory_bytes, named_memory
from strategies.continual.regularisation import AGEM, EWC, ICaRLLoss, LwF, NearestMean, NetworkEmbedding, Source
from strategies.continual.replay import MIR, DERpp, FineTuning, GDumb, Replay
from strategies.continual.settings import ContinualSettings

_FINE = 0.3
"""Fine-tuning starts at so many times the learning rate."""


class StatefulPlugin(Protocol):
    """A plugin that keeps something beside the model."""

    @property
    def bytes_kept(self) -> int: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any], network: nn.Module) -> None: ...


@dataclass(frozen=True)
class Setup:
    """What the builder of a strategy may use.

    Attributes:
        settings: of the run.
        like: the training data; the classes, normalisation and range count, samples do not.
        network: the model.
        loss: given scores and labels; balanced, or masked by task, as settings have it.
    """

    settings: ContinualSettings
    like: LabelledData
    network: Network
    loss: nn.Module

    def memory(self, name: str) -> Memory:
        """An empty memory with the whole byte budget."""
        return named_memory(name, self.settings, memory_bytes(self.settings, self.like))

    @property
    def replaying(self) -> dict[str, Any]:
        """Keyword arguments of :class:`Replay` that are the same for every strategy."""
        settings = self.settings
        return {
            "ratio": settings.replay_ratio,
            "augmentation": self._augmentation,
            "seed": derive_seed(settings.seed, "replay"),
        }

    def finetuning(self, replay: Replay) -> FineTuning | None:
        """Fine-tuning on what ``replay`` remembers, if the settings ask for it."""
        settings = self.settings
        if not settings.finetune_epochs:
            return None
        train_config = TrainConfig(
            settings.finetune_epochs,
            learning_rate=_FINE * settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            batch_size=settings.batch_size,
            schedule="cosine",
            augmentation=self._augmentation,
        )
        return FineTuning(replay, train_config, seed=derive_seed(settings.seed, "fine-tuning"))

    @property
    def _augmentation(self) -> Augmentation:
        return augmentation_for(self.like) if self.settings.replay_augment else NoAugmentation()


@dataclass(frozen=True)
class StrategyParts:
    """A strategy: plain training, and what is added to it.

    Attributes:
        loss: given scores and labels.
        replay: takes in experiences; None for no memory.
        stateful: plugins that keep something else, called after ``replay``.
        finetuning: at the end of each experience, on what ``replay`` holds.
        classifier: what is tested after each experience; None for the model itself.
        template: which of Avalanche's says what each experience trains on: itself, all so far, or all together.
        sample_bytes: of a sample of the stream, where the template keeps them all; 0 where it keeps none.
        online: works on mini-batches without boundaries.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    replay: Replay | None = None
    stateful: tuple[StatefulPlugin, ...] = ()
    finetuning: FineTuning | None = None
    classifier: Callable[[], nn.Module] | None = None
    template: Callable[..., Any] = Naive
    sample_bytes: int = 0
    online: bool = True

    @property
    def at_once(self) -> bool:
        """Whether all experiences are trained together, so that there is one stage."""
        return self.template is JointTraining

    @property
    def plugins(self) -> list[Any]:
        present = (self.replay, self.finetuning, *self.stateful)
        return [plugin for plugin in present if plugin is not None]

    @property
    def bytes_kept(self) -> int:
        """Of all that is kept beside the model, now."""
        samples = self.replay.bytes_kept[-1] if self.replay is not None and self.replay.bytes_kept else 0
        return samples + sum(keeper.bytes_kept for keeper in self.stateful)


Builder = Callable[..., StrategyParts]


def naive(setup: Setup) -> StrategyParts:
    """Fine-tuning: the floor."""
    return StrategyParts(setup.loss)


def joint(setup: Setup) -> StrategyParts:
    """All experiences at once: the ceiling."""
    return StrategyParts(setup.loss, template=JointTraining, sample_bytes=setup.like.sample_bytes, online=False)


def cumulative(setup: Setup) -> StrategyParts:
    """All experiences so far, each time: a memory without bounds, and the forgetting that more classes alone bring."""
    return StrategyParts(setup.loss, template=Cumulative, sample_bytes=setup.like.sample_bytes, online=False)


def reservoir(setup: Setup) -> StrategyParts:
    """Replay of uniformly random real samples."""
    return _replay(setup, "reservoir")


def balanced(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of random real samples, equally many of each class."""
    return _replay(setup, "balanced", final_shares=final_shares)


def herding(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of real samples chosen by herding."""
    return _replay(setup, "herding", final_shares=final_shares)


def distilled(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of distilled samples."""
    return _replay(setup, "distilled", online=False, final_shares=final_shares)


def hybrid(setup: Setup, *, real_share: float = 0.5) -> StrategyParts:
    """Replay of real samples, in a share of the bytes, and distilled ones."""
    return _replay(setup, "hybrid", online=False, real_share=real_share)


def condensed(setup: Setup, *, buffer_size: int = 32, buffer_share: float = 0.5) -> StrategyParts:
    """Replay of samples that are condensed as they pass."""
    return _replay(setup, "condensed", buffer_size=buffer_size, buffer_share=buffer_share)


def gdumb(setup: Setup, *, memory: str = "balanced") -> StrategyParts:
    """Training from scratch on the memory alone."""
    replay = GDumb(setup.memory(memory), setup.network, setup.like, **setup.replaying)
    return StrategyParts(setup.loss, replay, online=False)


def icarl(setup: Setup) -> StrategyParts:
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

    return StrategyParts(loss, replay, (loss,), classifier=nearest_mean, online=False)


def der(setup: Setup, *, memory: str = "reservoir", alpha: float = 0.5, beta: float = 1.0) -> StrategyParts:
    """DER++: remembered samples shall get the scores they once had."""
    left = bytes_beside_scores(setup.settings, setup.like, memory)
    replay = DERpp(named_memory(memory, setup.settings, left), setup.like, **setup.replaying)
    return StrategyParts(DERppLoss(replay, setup.loss, alpha=alpha, beta=beta), replay, online=_takes_batches(memory))


def er_ace(setup: Setup, *, memory: str = "reservoir") -> StrategyParts:
    """Current samples compete among current classes alone."""
    replay = Replay(setup.memory(memory), setup.like, early=True, **setup.replaying)
    return StrategyParts(ERACE(replay, setup.loss), replay, online=_takes_batches(memory))


def mir(setup: Setup, *, memory: str = "reservoir", candidates: int = 5) -> StrategyParts:
    """Replay of what the current batch is about to spoil."""
    replay = Replay(setup.memory(memory), setup.like, retrieval=MIR(candidates), **setup.replaying)
    return StrategyParts(setup.loss, replay, online=_takes_batches(memory))


def a_gem(setup: Setup, *, memory: str = "reservoir", sample_size: int = 64) -> StrategyParts:
    """No step may raise the loss of what is remembered."""
    source = Source(setup.memory(memory), setup.like, **setup.replaying)
    return StrategyParts(setup.loss, source, (AGEM(source, sample_size),), online=_takes_batches(memory))


def ewc(setup: Setup, *, strength: float = 100.0) -> StrategyParts:
    """Weights that mattered are held where they were."""
    return StrategyParts(setup.loss, stateful=(EWC(strength),), online=False)


def lwf(setup: Setup, *, strength: float = 1.0, temperature: float = 2.0) -> StrategyParts:
    """The model before this experience is its teacher."""
    return StrategyParts(setup.loss, stateful=(LwF(strength, temperature),), online=False)


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


def build_strategy(setup: Setup) -> StrategyParts:
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


def _replay(setup: Setup, memory: str, *, online: bool = True, **settings: Any) -> StrategyParts:
    named = ",".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    held = setup.memory(f"{memory}:{named}")
    return StrategyParts(setup.loss, Replay(held, setup.like, **setup.replaying), online=online)


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
