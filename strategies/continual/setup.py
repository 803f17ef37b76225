"""What strategies are put together from, and what a strategy is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from avalanche.training.supervised import JointTraining, Naive
from torch import Tensor, nn

from fedcl_distill.augmentation import Augmentation, NoAugmentation, augmentation_for
from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import TrainConfig
from strategies.continual.memories.base import Memory
from strategies.continual.memories.named import memory_bytes, named_memory
from strategies.continual.replay.finetuning import FineTuning
from strategies.continual.replay.plugin import Replay
from strategies.continual.settings import ContinualSettings

_FINE = 0.3
"""Fine-tuning starts at so many times the learning rate."""


class Keeper(Protocol):
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
class Plan:
    """A strategy: plain training, and what is added to it.

    Attributes:
        loss: given scores and labels.
        replay: takes in experiences; None for no memory.
        keepers: plugins that keep something else, called after ``replay``.
        finetuning: at the end of each experience, on what ``replay`` holds.
        classifier: what is tested after each experience; None for the model itself.
        template: which of Avalanche's says what each experience trains on: itself, all so far, or all together.
        sample_bytes: of a sample of the stream, where the template keeps them all; 0 where it keeps none.
        online: works on mini-batches without boundaries.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    replay: Replay | None = None
    keepers: tuple[Keeper, ...] = ()
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
        present = (self.replay, self.finetuning, *self.keepers)
        return [plugin for plugin in present if plugin is not None]

    @property
    def bytes_kept(self) -> int:
        """Of all that is kept beside the model, now."""
        samples = self.replay.bytes_kept[-1] if self.replay is not None and self.replay.bytes_kept else 0
        return samples + sum(keeper.bytes_kept for keeper in self.keepers)
