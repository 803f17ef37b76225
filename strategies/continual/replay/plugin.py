"""Replay from a memory, as an Avalanche plugin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.memories.base import Memory
from strategies.continual.streams.avalanche_data import labelled_data


@dataclass(frozen=True)
class Batch:
    """Remembered samples.

    Attributes:
        inputs: float32 (n, …) network inputs.
        labels: int64 (n,) classes, or float32 (n, classes) probabilities.
        rows: int64 (n,): where they are in the memory.
    """

    inputs: Tensor
    labels: Tensor
    rows: Tensor

    def __getitem__(self, chosen: Tensor) -> Batch:
        return Batch(self.inputs[chosen], self.labels[chosen], self.rows[chosen.cpu()])


class Retrieval(Protocol):
    """Chooses what is replayed beside the current batch."""

    def __call__(self, strategy: Any, replay: Replay, count: int) -> Batch:
        """``count`` samples from ``replay``; the current batch, and nothing else, is in ``strategy.mbatch``."""
        ...


def uniform(strategy: Any, replay: Replay, count: int) -> Batch:
    """Any samples, drawn with replacement."""
    return replay.draw(count)


class Replay(SupervisedPlugin):  # type: ignore[misc]
    """Adds remembered samples to every training batch, and each experience to the memory when it is finished.

    Samples are drawn with replacement and in a fixed ratio to the current batch. Thus the weight of replay does not
    grow with the memory, and memories of different sizes can be compared (Avalanche's own loader goes through a
    memory once an epoch, and gives a large one more weight). Where the memory has soft labels, so has the whole batch:
    those of current samples are one-hot.

    Args:
        memory: any memory; distilled and reservoir replay differ in nothing else.
        like: data of the same kind as the benchmark's: classes, normalisation, value range.
        ratio: remembered samples for each current one.
        augmentation: of remembered samples, drawn anew each time.
        retrieval: chooses what is replayed.
        early: take in each experience before training on it instead of after, so that its classes are replayed too.
        soft: replay soft labels where the memory has them; otherwise their most probable class.
        seed: fixes what is drawn.

    Attributes:
        batch: what was added to the current batch, at its end, from before the forward pass to after the loss.
        replayed: samples added to batches so far.
        bytes_kept: of the memory, after each experience.
        seconds, cpu_seconds: that the memory took to take in each experience, by the wall and by the processor.
    """

    def __init__(
        self,
        memory: Memory,
        like: LabelledData,
        *,
        ratio: float = 1.0,
        augmentation: Augmentation | None = None,
        retrieval: Retrieval = uniform,
        early: bool = False,
        soft: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.ratio = ratio
        self.batch: Batch | None = None
        self.replayed = 0
        self.bytes_kept: list[int] = []
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._like = like
        self._augmentation = augmentation or NoAugmentation()
        self._retrieval = retrieval
        self._early = early
        self._soft = soft
        self._seed = seed
        self._held: SyntheticSet | None = None
        self._generator = torch.Generator()

    @property
    def holds_samples(self) -> bool:
        """Whether there is something to draw, in the experience under way."""
        return self._held is not None

    def draw(self, count: int) -> Batch:
        """``count`` remembered samples, drawn with replacement and augmented."""
        return self._at(torch.randint(self._size, (count,), generator=self._generator))

    def draw_distinct(self, count: int) -> Batch:
        """``count`` different remembered samples, or all where there are fewer, in any order and augmented."""
        return self._at(torch.randperm(self._size, generator=self._generator)[:count])

    @property
    def _size(self) -> int:
        return 0 if self._held is None else len(self._held)

    def _at(self, rows: Tensor) -> Batch:
        if self._held is None:
            raise RuntimeError("nothing is remembered yet")
        count = len(rows)
        augment = self._augmentation.draw(count, self._held.sample_shape, self._generator)
        return Batch(augment(self._inputs[rows], torch.arange(count)), self._labels[rows], rows)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the memory once for the whole experience."""
        if self._early:
            self._take_in(strategy)
        self._open(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append remembered samples to the current batch; other parts of it, such as tasks, repeat their first."""
        self.batch = None
        if not (self.holds_samples and strategy.is_training):
            return
        count = round(self.ratio * len(strategy.mbatch[0]))
        self.batch = self._retrieval(strategy, self, count)
        inputs, labels, *others = strategy.mbatch
        added = [part[:1].expand(count, *part.shape[1:]) for part in others]
        strategy.mbatch = [
            torch.cat([inputs, self.batch.inputs]),
            _labels_together(labels, self.batch.labels),
            *(torch.cat(pair) for pair in zip(others, added, strict=True)),
        ]
        self.replayed += count

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The loss is there, and the batch served its purpose."""
        self.batch = None

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        if not self._early:
            self._take_in(strategy)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        own = {"replayed": self.replayed, "bytes_kept": self.bytes_kept}
        spent = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        return own | spent | {"memory": self.memory.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another plugin's :meth:`state`."""
        self.memory.restore(state["memory"])
        self.replayed, self.bytes_kept = state["replayed"], state["bytes_kept"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]

    def _open(self, device: Any) -> None:
        self._held = self.memory.recall()
        self._generator = generator_for(self._seed, "replay", len(self.bytes_kept))
        if self._held is not None:
            self._inputs = self._held.inputs().to(device)
            self._labels = (self._held.labels if self._soft else self._held.hard_labels).to(device)

    def _take_in(self, strategy: Any) -> None:
        started, by_processor = time.monotonic(), time.process_time()
        with torch.enable_grad():
            self._remember(labelled_data(strategy.experience.dataset, self._like), strategy.model)
        self.bytes_kept.append(self._bytes_now())
        self.seconds.append(time.monotonic() - started)
        self.cpu_seconds.append(time.process_time() - by_processor)

    def _remember(self, data: LabelledData, network: nn.Module) -> None:
        self.memory.add(data)

    def _bytes_now(self) -> int:
        return self.memory.bytes_kept


def _labels_together(current: Tensor, remembered: Tensor) -> Tensor:
    if remembered.ndim > current.ndim:
        current = F.one_hot(current, remembered.shape[1]).to(remembered.dtype)
    return torch.cat([current, remembered])
