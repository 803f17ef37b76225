"""Continual strategies by name, and what they are put together from.

To know the names takes no Avalanche: what runs on it is imported when a strategy is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from torch import Tensor, nn

from fedcl_distill.augmentation import Augmentation, NoAugmentation, augmentation_for
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import CoreSet
from fedcl_distill.errors import SettingsError
from fedcl_distill.features import (
    HEADS,
    LDA,
    ClusterCentres,
    Full,
    LowRank,
    Means,
    NearestMean,
    RandomFeatures,
    Ridge,
    Storage,
    SumHead,
)
from fedcl_distill.features.heads import Shrinkage
from fedcl_distill.networks import Network
from fedcl_distill.registry import build_with
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Herding
from fedcl_distill.settings import Count, Momentum, NonNegative, Positive, Range, checked
from fedcl_distill.synthetic.quantise import Bits
from fedcl_distill.training import TrainConfig
from strategies import continual
from strategies.continual.losses import ERACE, DERppLoss
from strategies.continual.memory import Memory
from strategies.continual.memory_registry import bytes_beside_logits, exemplars, memory_bytes, named_memory
from strategies.continual.settings import CONTINUAL_STRATEGIES, ContinualSettings, memory_name

if TYPE_CHECKING:
    from strategies.continual.replay import FineTuning, Replay

_FINE = 0.3
"""Fine-tuning starts at so many times the learning rate."""

MemoryLike = Memory | str | Mapping[str, Any]
"""A memory, or what names one."""


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
        loss: given logits and labels; balanced, or masked by task, as settings have it.
    """

    settings: ContinualSettings
    like: LabelledData
    network: Network
    loss: nn.Module

    def memory(self, name: Memory | str | Mapping[str, Any]) -> Memory:
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
        return continual.FineTuning(replay, train_config, seed=derive_seed(settings.seed, "fine-tuning"))

    @property
    def _augmentation(self) -> Augmentation:
        return augmentation_for(self.like) if self.settings.replay_augment else NoAugmentation()


@dataclass(frozen=True)
class StrategyParts:
    """A strategy: plain training, and what is added to it.

    Attributes:
        loss: given logits and labels.
        replay: takes in experiences; None for no memory.
        stateful: plugins that keep something else, called after ``replay``.
        finetuning: at the end of each experience, on what ``replay`` holds.
        classifier: what is tested after each experience; None for the model itself.
        template: what each experience trains on: itself ("naive"), all so far ("cumulative"), or all together
            ("joint").
        trains: whether the model is trained at all; what is ``stateful`` takes experiences in either way.
        sample_bytes: of a sample of the stream, where the template keeps them all; 0 where it keeps none.
        online: works on mini-batches without boundaries.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    replay: Replay | None = None
    stateful: tuple[StatefulPlugin, ...] = ()
    finetuning: FineTuning | None = None
    classifier: Callable[[], nn.Module] | None = None
    template: Literal["naive", "cumulative", "joint"] = "naive"
    trains: bool = True
    sample_bytes: int = 0
    online: bool = True

    @property
    def at_once(self) -> bool:
        """Whether all experiences are trained together, so that there is one stage."""
        return self.template == "joint"

    @property
    def plugins(self) -> list[Any]:
        present = (self.replay, self.finetuning, *self.stateful)
        return [plugin for plugin in present if plugin is not None]

    @property
    def bytes_kept(self) -> int:
        """Of all that is kept beside the model, now."""
        samples = self.replay.bytes_kept[-1] if self.replay is not None and self.replay.bytes_kept else 0
        return samples + sum(keeper.bytes_kept for keeper in self.stateful)


@CONTINUAL_STRATEGIES.register("naive")
def naive(setup: Setup) -> StrategyParts:
    """Fine-tuning: the floor."""
    return StrategyParts(setup.loss)


@CONTINUAL_STRATEGIES.register("joint")
def joint(setup: Setup) -> StrategyParts:
    """All experiences at once: the ceiling."""
    return StrategyParts(setup.loss, template="joint", sample_bytes=setup.like.sample_bytes, online=False)


@CONTINUAL_STRATEGIES.register("cumulative")
def cumulative(setup: Setup) -> StrategyParts:
    """All experiences so far, each time: a memory without bounds, and the forgetting that more classes alone bring."""
    return StrategyParts(setup.loss, template="cumulative", sample_bytes=setup.like.sample_bytes, online=False)


@CONTINUAL_STRATEGIES.register("reservoir")
def reservoir(setup: Setup) -> StrategyParts:
    """Replay of uniformly random real samples."""
    return _replay(setup, "reservoir")


@CONTINUAL_STRATEGIES.register("balanced")
@checked
def balanced(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of random real samples, equally many of each class."""
    return _replay(setup, "balanced", final_shares=final_shares)


@CONTINUAL_STRATEGIES.register("herding")
@checked
def herding(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of real samples chosen by herding."""
    return _replay(setup, "herding", final_shares=final_shares)


@CONTINUAL_STRATEGIES.register("distilled")
@checked
def distilled(setup: Setup, *, final_shares: bool = False) -> StrategyParts:
    """Replay of distilled samples."""
    return _replay(setup, "distilled", final_shares=final_shares)


@CONTINUAL_STRATEGIES.register("hybrid")
@checked
def hybrid(setup: Setup, *, real_share: Annotated[float, Range(gt=0, lt=1)] = 0.5) -> StrategyParts:
    """Replay of real samples, in a share of the bytes, and distilled ones."""
    return _replay(setup, "hybrid", real_share=real_share)


@CONTINUAL_STRATEGIES.register("condensed")
@checked
def condensed(setup: Setup, *, buffer_size: Count = 32, buffer_share: Momentum = 0.5) -> StrategyParts:
    """Replay of samples that are condensed as they pass."""
    return _replay(setup, "condensed", buffer_size=buffer_size, buffer_share=buffer_share)


@CONTINUAL_STRATEGIES.register("replay")
@checked
def replay(setup: Setup, *, memory: MemoryLike = "reservoir") -> StrategyParts:
    """Plain replay from any memory, also of another package."""
    held = continual.Replay(setup.memory(memory), setup.like, **setup.replaying)
    return StrategyParts(setup.loss, held, online=_takes_batches(memory))


@CONTINUAL_STRATEGIES.register("gdumb")
@checked
def gdumb(setup: Setup, *, memory: MemoryLike = "balanced") -> StrategyParts:
    """Training from scratch on the memory alone."""
    held = continual.GDumb(setup.memory(memory), setup.network, setup.like, **setup.replaying)
    return StrategyParts(setup.loss, held, online=False)


@CONTINUAL_STRATEGIES.register("icarl")
def icarl(setup: Setup) -> StrategyParts:
    """Exemplars herded in the model's embedding, distillation of old logits, nearest means."""
    settings, embedding = setup.settings, continual.NetworkEmbedding(setup.network)
    if settings.scenario == "domain":
        raise SettingsError("icarl keeps old classes as they were, so they must not come back in another domain")
    memory = exemplars(settings, memory_bytes(settings, setup.like), CoreSet(Herding(embedding)))
    held = continual.Replay(memory, setup.like, soft=False, **setup.replaying)
    loss = continual.ICaRLLoss()

    def nearest_mean() -> nn.Module:
        exemplars = memory.recall()
        return setup.network if exemplars is None else continual.NearestMean(setup.network, exemplars)

    return StrategyParts(loss, held, (loss,), classifier=nearest_mean, online=False)


@CONTINUAL_STRATEGIES.register("der++")
@checked
def der(
    setup: Setup, *, memory: MemoryLike = "reservoir", alpha: NonNegative = 0.5, beta: NonNegative = 1.0
) -> StrategyParts:
    """DER++: remembered samples must keep the logits they once had."""
    left = bytes_beside_logits(setup.settings, setup.like, memory)
    held = continual.DERpp(named_memory(memory, setup.settings, left), setup.like, **setup.replaying)
    loss = DERppLoss(held, setup.loss, alpha=alpha, beta=beta)
    return StrategyParts(loss, held, online=_takes_batches(memory))


@CONTINUAL_STRATEGIES.register("er-ace")
@checked
def er_ace(setup: Setup, *, memory: MemoryLike = "reservoir") -> StrategyParts:
    """Current samples compete among current classes alone."""
    held = continual.Replay(setup.memory(memory), setup.like, early=True, **setup.replaying)
    return StrategyParts(ERACE(held, setup.loss), held, online=_takes_batches(memory))


@CONTINUAL_STRATEGIES.register("mir")
@checked
def mir(setup: Setup, *, memory: MemoryLike = "reservoir", candidates: Count = 5) -> StrategyParts:
    """Replay of what the current batch is about to spoil."""
    chosen = continual.MIR(candidates)
    held = continual.Replay(setup.memory(memory), setup.like, retrieval=chosen, **setup.replaying)
    return StrategyParts(setup.loss, held, online=_takes_batches(memory))


@CONTINUAL_STRATEGIES.register("a-gem")
@checked
def a_gem(setup: Setup, *, memory: MemoryLike = "reservoir", sample_size: Count = 64) -> StrategyParts:
    """No step may raise the loss of what is remembered."""
    source = continual.Source(setup.memory(memory), setup.like, **setup.replaying)
    return StrategyParts(setup.loss, source, (continual.AGEM(source, sample_size),), online=_takes_batches(memory))


@CONTINUAL_STRATEGIES.register("ewc")
@checked
def ewc(setup: Setup, *, strength: NonNegative = 100.0, samples: Count = 1024) -> StrategyParts:
    """Weights that mattered are held where they were."""
    return StrategyParts(setup.loss, stateful=(continual.EWC(strength, samples=samples),), online=False)


@CONTINUAL_STRATEGIES.register("lwf")
@checked
def lwf(setup: Setup, *, strength: NonNegative = 1.0, temperature: Positive = 2.0) -> StrategyParts:
    """The model before this experience is its teacher."""
    return StrategyParts(setup.loss, stateful=(continual.LwF(strength, temperature),), online=False)


@CONTINUAL_STRATEGIES.register("ncm")
@checked
def ncm(setup: Setup, *, metric: Literal["euclidean", "cosine"] = "euclidean") -> StrategyParts:
    """The nearest class mean; exact, whatever the order of experiences (SimpleCIL, Zhou et al. 2024)."""
    return _sums(setup, Means(), NearestMean(metric))


@CONTINUAL_STRATEGIES.register("slda")
@checked
def slda(setup: Setup, *, shrinkage: Shrinkage = "oas") -> StrategyParts:
    """Class means and one running covariance (Deep SLDA, Hayes and Kanan 2020, who shrink by 1e-4)."""
    return _sums(setup, Full(), LDA(shrinkage))


@CONTINUAL_STRATEGIES.register("ridge")
@checked
def ridge(setup: Setup, *, regularisation: Positive = 1e-2) -> StrategyParts:
    """Ridge regression on accumulated sums: that of all data at once."""
    return _sums(setup, Full(), Ridge(regularisation))


@CONTINUAL_STRATEGIES.register("ranpac")
@checked
def ranpac(setup: Setup, *, count: Count = 2000, regularisation: Positive = 1e-3, seed: int = 0) -> StrategyParts:
    """Ridge regression behind a random projection with ReLU (RanPAC, McDonnell et al. 2023, with 10,000 of them)."""
    return _sums(setup, Full(), Ridge(regularisation), features=RandomFeatures(count, seed))


@CONTINUAL_STRATEGIES.register("low-rank")
@checked
def low_rank(setup: Setup, *, mean_bits: Bits = 8, bits: Bits = 16) -> StrategyParts:
    """Class means, and as many directions of the scatter within classes as the byte budget holds; LDA."""
    return _sums(setup, LowRank(), LDA(), mean_bits, bits, memory_bytes(setup.settings, setup.like))


@CONTINUAL_STRATEGIES.register("clustered")
@checked
def clustered(setup: Setup, *, head: Literal["lda", "ridge", "logistic"] = "lda", bits: Bits = 8) -> StrategyParts:
    """As many cluster centres of each class, with their counts, as the byte budget holds."""
    budget = memory_bytes(setup.settings, setup.like)
    return _sums(setup, ClusterCentres(), HEADS.build(head), bits, bits, budget)


def build_strategy(setup: Setup) -> StrategyParts:
    """The strategy that the settings name.

    Raises:
        SettingsError: the strategy or one of its settings is unknown, of another type, out of range, or does not work
            in an online stream.
    """
    settings = setup.settings
    entry = CONTINUAL_STRATEGIES[settings.strategy]
    own = {**settings.strategy_settings, "setup": setup}
    parts = build_with(f"strategy {settings.strategy!r}", entry.build, own)
    if settings.online and not parts.online:
        raise SettingsError(f"{settings.strategy!r} must know where experiences end; an online stream does not say it")
    return parts if parts.replay is None else with_changes(parts, finetuning=setup.finetuning(parts.replay))


def _replay(setup: Setup, memory: str, **own: Any) -> StrategyParts:
    held = continual.Replay(setup.memory({"name": memory, **own}), setup.like, **setup.replaying)
    return StrategyParts(setup.loss, held, online=_takes_batches(memory))


def _sums(
    setup: Setup,
    storage: Storage,
    head: SumHead,
    bits: int = 32,
    second_bits: int = 32,
    byte_budget: int | None = None,
    features: RandomFeatures | None = None,
) -> StrategyParts:
    memory = continual.FeatureSumMemory(storage, bits, second_bits, byte_budget, features)
    learner = continual.SumLearner(memory, head, setup.like)
    return StrategyParts(setup.loss, stateful=(learner,), classifier=learner.classifier, trains=False)


def _takes_batches(memory: MemoryLike) -> bool:
    """Distilling anew at every mini-batch would be no online learning."""
    return memory_name(memory) not in ("distilled", "hybrid")
