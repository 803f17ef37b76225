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

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """float32 (): loss of ``scores`` (n, classes) under int64 (n,) labels or float32 (n, classes) probabilities."""
        classes = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return (balanced_weights(classes) * F.cross_entropy(scores, labels, reduction="none")).sum()


def balanced_weights(classes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``dtype`` (n,), of sum 1: under these, all that are present of int64 (n,) ``classes`` weigh the same."""
    counts = torch.bincount(classes).to(dtype)
    return 1 / (counts[classes] * (counts > 0).sum())


def as_probabilities(labels: Tensor, classes: int) -> Tensor:
    """float32 (n, classes): int64 (n,) classes as one-hot rows, probabilities as they are."""
    return F.one_hot(labels, classes).float() if labels.ndim == 1 else labels


_EXCLUDED = -1e9  # a score of no chance; finite, so that a label's zero times it is zero


class Replayed(Protocol):
    """What stands at the end of the current batch: nothing, or as many samples as ``rows`` has."""

    rows: Tensor


class Split(Protocol):
    """A replay plugin."""

    @property
    def batch(self) -> Replayed | None: ...


class ERACE(nn.Module):
    """ER-ACE (Caccia et al. 2022): current samples compete among the classes of the current batch alone.

    New classes then do not push down the scores of old ones, which only remembered samples teach; those compete among
    all classes. The two means are added up. Where nothing is remembered yet, the first holds for the whole batch.

    Args:
        replay: whose samples the batch ends with.
        loss: of either part, given scores and labels.
    """

    def __init__(self, replay: Split, loss: nn.Module) -> None:
        super().__init__()
        self._replay = [replay]  # in a list, for a plugin is no part of a module
        self._loss = loss

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        current = len(scores) - _replayed(self._replay[0])
        present = as_probabilities(labels[:current], scores.shape[1]).sum(dim=0) > 0
        loss: Tensor = self._loss(scores[:current].masked_fill(~present, _EXCLUDED), labels[:current])
        return loss if current == len(scores) else loss + self._loss(scores[current:], labels[current:])


class DERppLoss(nn.Module):
    """DER++ (Buzzega et al. 2020): remembered samples shall get the scores they once had, beside their labels.

    Args:
        replay: whose samples the batch ends with, and who remembers their scores.
        loss: of current samples, and of remembered ones, given scores and labels.
        alpha: weight of the mean squared error of scores.
        beta: weight of the loss of remembered samples under their labels; 0 is DER.
    """

    def __init__(self, replay: RemembersScores, loss: nn.Module, *, alpha: float, beta: float) -> None:
        super().__init__()
        self._replay = [replay]
        self._loss = loss
        self.alpha = alpha
        self.beta = beta

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        replay = self._replay[0]
        current = len(scores) - _replayed(replay)
        loss: Tensor = self._loss(scores[:current], labels[:current])
        if replay.batch is None:
            return loss
        once = replay.scores_of(replay.batch.rows).to(scores.device)
        loss = loss + self.alpha * F.mse_loss(scores[current:], once)
        again: Tensor = self._loss(scores[current:], labels[current:])
        return loss + self.beta * again


class RemembersScores(Split, Protocol):
    """A replay plugin that keeps the scores of what it remembers."""

    def scores_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): those of the samples at ``rows``."""
        ...


class MaskedLoss(nn.Module):
    """Each sample competes among the classes of its task alone: one head a task, masked out of a single one.

    Args:
        loss: given scores and labels.
        tasks: the classes of each task; a class of none keeps all scores.
    """

    def __init__(self, loss: nn.Module, tasks: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._loss = loss
        self._tasks = [list(task) for task in tasks]

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        allowed = torch.ones(scores.shape[1], scores.shape[1], dtype=torch.bool, device=scores.device)
        for task in self._tasks:
            allowed[task] = False
            allowed[torch.tensor(task)[:, None], torch.tensor(task)] = True
        mask = allowed[labels if labels.ndim == 1 else labels.argmax(dim=1)]
        if labels.ndim == 2:
            labels = labels * mask
            labels = labels / labels.sum(dim=1, keepdim=True)
        loss: Tensor = self._loss(scores.masked_fill(~mask, _EXCLUDED), labels)
        return loss


def _replayed(replay: Split) -> int:
    return 0 if replay.batch is None else len(replay.batch.rows)


class MaskedClassifier(nn.Module):
    """Chooses among the classes of one task.

    Args:
        classifier: gives scores of all classes.
        classes: of the task.
    """

    def __init__(self, classifier: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.classifier = classifier
        self.classes = list(classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): the scores, minus infinity for other tasks' classes."""
        scores = self.classifier(inputs)
        within = torch.full_like(scores, float("-inf"))
        within[:, self.classes] = scores[:, self.classes]
        return within
