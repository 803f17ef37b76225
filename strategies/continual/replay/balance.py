"""Every class weighs the same: of samples, and in a loss of batches."""

from __future__ import annotations

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
