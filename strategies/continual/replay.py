"""Replay from a memory, as an Avalanche plugin."""

from __future__ import annotations

import time
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.avalanche_data import labelled_data
from strategies.continual.memory import Memory


class Replay(SupervisedPlugin):  # type: ignore[misc]
    """Adds remembered samples to every training batch, and each finished experience to the memory.

    Samples are drawn with replacement and in a fixed ratio to the current batch. Thus the weight of replay does not
    grow with the memory, and memories of different sizes can be compared (Avalanche's own loader goes through a
    memory once an epoch, and gives a large one more weight).

    Args:
        memory: any memory; distilled and reservoir replay differ in nothing else.
        like: data of the same kind as the benchmark's: classes, normalisation, value range.
        ratio: remembered samples for each current one.
        augmentation: of remembered samples, drawn anew each time.
        seed: fixes what is drawn.

    Attributes:
        replayed: samples added to batches so far.
        bytes_kept: of the memory, after each experience.
        seconds: that the memory took to take in each experience.
    """

    def __init__(
        self,
        memory: Memory,
        like: LabelledData,
        *,
        ratio: float = 1.0,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.ratio = ratio
        self.replayed = 0
        self.bytes_kept: list[int] = []
        self.seconds: list[float] = []
        self._like = like
        self._augmentation = augmentation or NoAugmentation()
        self._seed = seed
        self._held: SyntheticSet | None = None
        self._generator = torch.Generator()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the memory once for the whole experience."""
        self._held = self.memory.recall()
        self._generator = generator_for(self._seed, "replay", len(self.bytes_kept))
        if self._held is not None:
            self._inputs = self._held.inputs().to(strategy.device)
            self._labels = self._held.hard_labels.to(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append remembered samples to the current batch; other parts of it, such as tasks, repeat their first."""
        if self._held is None or not strategy.is_training:
            return
        count = round(self.ratio * len(strategy.mbatch[0]))
        rows = torch.randint(len(self._held), (count,), generator=self._generator)
        draw = self._augmentation.draw(count, self._held.sample_shape, self._generator)
        inputs = draw(self._inputs[rows], torch.arange(count))
        added = [inputs, self._labels[rows], *(part[:1].expand(count) for part in strategy.mbatch[2:])]
        strategy.mbatch = [torch.cat([old, new]) for old, new in zip(strategy.mbatch, added, strict=True)]
        self.replayed += count

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        started = time.monotonic()
        with torch.enable_grad():
            self.memory.add(labelled_data(strategy.experience.dataset, self._like))
        self.bytes_kept.append(self.memory.bytes_kept)
        self.seconds.append(time.monotonic() - started)
