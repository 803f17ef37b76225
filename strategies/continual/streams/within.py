"""A classifier that is told the task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Within(nn.Module):
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
