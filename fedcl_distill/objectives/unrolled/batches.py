"""Which synthetic samples each step of an inner training takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.inner_training.student import Batch, Student
from fedcl_distill.seeding import generator_for


class InnerBatches(Protocol):
    """Chooses the samples of a step."""

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        """int64 (m,): positions in ``classes`` (n,) for step number ``step`` of the training named by ``seed``."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FixedBatches:
    """The samples of every class dealt out to ``count`` batches, taken in turn: each sample has its steps (DD).

    With as many samples a class as batches, a batch holds one of each class (Wang et al. 2018). Where no class has so
    many samples there are fewer batches; one sample a class makes one batch of all.
    """

    count: int = 10

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"samples need at least one batch, got {self.count}")

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        order = classes.argsort(stable=True)
        counts = torch.bincount(classes)
        firsts = counts.cumsum(0) - counts
        within = torch.empty_like(classes)
        within[order] = torch.arange(len(classes), device=classes.device) - firsts[classes[order]]
        batches = min(self.count, int(counts.max()))
        return torch.nonzero(within % batches == step % batches).flatten()

    def settings(self) -> dict[str, Any]:
        return {"inner_batches": "fixed", "inner_batch_count": self.count}


@dataclass(frozen=True)
class RandomBatches:
    """``size`` samples a step, in random order and each once a pass; None takes all samples at every step."""

    size: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise SettingsError(f"a batch needs at least one sample, got {self.size}")

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        count = len(classes)
        if self.size is None or self.size >= count:
            return torch.arange(count, device=classes.device)
        per_pass = -(-count // self.size)
        order = torch.randperm(count, generator=generator_for(seed, "inner order", step // per_pass))
        return torch.split(order, self.size)[step % per_pass].to(classes.device)

    def settings(self) -> dict[str, Any]:
        return {"inner_batches": "random", "inner_batch_size": self.size}


@dataclass(frozen=True)
class ScheduledStudent(Student):
    """A student whose batches are chosen by ``batches``; ``classes``, int64 (n,), are those of its samples."""

    classes: Tensor
    batches: InnerBatches

    def batch(self, step: int) -> Batch:
        rows = self.batches.rows(self.classes, step, self.seed)
        generator = generator_for(self.seed, "inner augmentation", step)
        return Batch(rows, self.augmentation.draw(len(rows), tuple(self.inputs.shape[1:]), generator))
