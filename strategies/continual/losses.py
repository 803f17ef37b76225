"""All continual losses: balanced, masked by task, ER-ACE, DER++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BalancedCrossEntropy(nn.Module):
    """Cross entropy, averaged within each class of the batch first and over these classes then.

    With as many remembered as current samples in a batch, two new classes would weigh as much as eight old ones
    together, and the model would lean towards the new ones. Weighing classes alike costs nothing and needs to know
    neither the memory nor the stream. A sample with a soft label belongs to its most probable class.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float32 (): loss of ``logits`` (n, classes) under int64 (n,) labels or float32 (n, classes) probabilities."""
        classes = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return (balanced_weights(classes) * F.cross_entropy(logits, labels, reduction="none")).sum()


def balanced_weights(classes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``dtype`` (n,), of sum 1: under these, all that are present of int64 (n,) ``classes`` weigh the same."""
    counts = torch.bincount(classes).to(dtype)
    return 1 / (counts[classes] * (counts > 0).sum())


def as_probabilities(labels: Tensor, classes: int) -> Tensor:
    """float32 (n, classes): int64 (n,) classes as one-hot rows, probabilities as they are."""
    return F.one_hot(labels, classes).float() if labels.ndim == 1 else labels


UNUSED = -100.0
"""Avalanche's heads answer -1000 for outputs that are not in use."""
_EXCLUDED = -1e9  # a logit of no chance; finite, so that a label's zero times it is zero


class Replayed(Protocol):
    """What stands at the end of the current batch: nothing, or as many samples as ``rows`` has."""

    rows: Tensor


class Split(Protocol):
    """A replay plugin."""

    @property
    def batch(self) -> Replayed | None: ...


class ERACE(nn.Module):
    """ER-ACE (Caccia et al. 2022): current samples compete among the classes of the current batch alone.

    New classes then do not push down the logits of old ones, which only remembered samples teach; those compete among
    all classes. The two means are added up. Where nothing is remembered yet, the first holds for the whole batch.

    Args:
        replay: whose samples the batch ends with.
        loss: of either part, given logits and labels.
    """

    def __init__(self, replay: Split, loss: nn.Module) -> None:
        super().__init__()
        self._replay = [replay]  # in a list, for a plugin is no part of a module
        self._loss = loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        current = len(logits) - _replayed(self._replay[0])
        present = as_probabilities(labels[:current], logits.shape[1]).sum(dim=0) > 0
        loss: Tensor = self._loss(logits[:current].masked_fill(~present, _EXCLUDED), labels[:current])
        return loss if current == len(logits) else loss + self._loss(logits[current:], labels[current:])


class DERppLoss(nn.Module):
    """DER++ (Buzzega et al. 2020): remembered samples must keep the logits they once had, beside their labels.

    Args:
        replay: whose samples the batch ends with, and who remembers their logits.
        loss: of current samples, and of remembered ones, given logits and labels.
        alpha: weight of the mean squared error of logits.
        beta: weight of the loss of remembered samples under their labels; 0 is DER.
    """

    def __init__(self, replay: RemembersLogits, loss: nn.Module, *, alpha: float, beta: float) -> None:
        super().__init__()
        self._replay = [replay]
        self._loss = loss
        self.alpha = alpha
        self.beta = beta

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        replay = self._replay[0]
        current = len(logits) - _replayed(replay)
        loss: Tensor = self._loss(logits[:current], labels[:current])
        if replay.batch is None:
            return loss
        now, once = logits[current:], replay.logits_of(replay.batch.rows).to(logits.device)
        if replay.several_heads:
            once = F.pad(once, (0, now.shape[1] - once.shape[1]))
            once = torch.where(now < UNUSED, now, once)
        loss = loss + self.alpha * F.mse_loss(now, once)
        again: Tensor = self._loss(now, labels[current:])
        return loss + self.beta * again


class RemembersLogits(Split, Protocol):
    """A replay plugin that keeps the logits of what it remembers.

    Attributes:
        several_heads: whether the model has one for each task; outputs that a head does not use do not count then.
    """

    several_heads: bool

    def logits_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): those of the samples at ``rows``."""
        ...


class MaskedLoss(nn.Module):
    """Each sample competes among the classes of its task alone: one head a task, masked out of a single one.

    Args:
        loss: given logits and labels.
        tasks: the classes of each task; a class of none keeps all logits.
    """

    def __init__(self, loss: nn.Module, tasks: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._loss = loss
        self._tasks = [list(task) for task in tasks]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        allowed = torch.ones(logits.shape[1], logits.shape[1], dtype=torch.bool, device=logits.device)
        for task in self._tasks:
            allowed[task] = False
            allowed[torch.tensor(task)[:, None], torch.tensor(task)] = True
        mask = allowed[labels if labels.ndim == 1 else labels.argmax(dim=1)]
        if labels.ndim == 2:
            labels = labels * mask
            labels = labels / labels.sum(dim=1, keepdim=True)
        loss: Tensor = self._loss(logits.masked_fill(~mask, _EXCLUDED), labels)
        return loss


def _replayed(replay: Split) -> int:
    return 0 if replay.batch is None else len(replay.batch.rows)


class MaskedClassifier(nn.Module):
    """Chooses among the classes of one task.

    Args:
        classifier: gives logits of all classes.
        classes: of the task.
    """

    def __init__(self, classifier: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.classifier = classifier
        self.classes = list(classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): the logits, minus infinity for other tasks' classes."""
        logits = self.classifier(inputs)
        within = torch.full_like(logits, float("-inf"))
        within[:, self.classes] = logits[:, self.classes]
        return within
