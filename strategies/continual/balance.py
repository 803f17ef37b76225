"""A loss in which every class of a batch weighs the same."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BalancedCrossEntropy(nn.Module):
    """Cross entropy, averaged within each class of the batch first and over these classes then.

    With as many remembered as current samples in a batch, two new classes would weigh as much as eight old ones
    together, and the model would lean towards the new ones. Weighing classes alike costs nothing and needs to know
    neither the memory nor the stream.
    """

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """float32 (): loss of ``scores`` (n, classes) under int64 (n,) labels or float32 (n, classes) probabilities."""
        targets = F.one_hot(labels, scores.shape[1]).to(scores.dtype) if labels.ndim == 1 else labels
        mass = targets.sum(dim=0)
        present = mass > 0
        losses = -(targets * F.log_softmax(scores, dim=1)).sum(dim=0)
        return (losses[present] / mass[present]).mean()
