"""What the synthetic samples are labelled with: hard classes, learned probabilities, or what a teacher says."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fedcl_distill.problem import Problem


class Labelling:
    """The labels of one run; each hook leaves labels as they are unless overridden."""

    def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """Labels before the first step: int64 (n,), or float32 (n, classes) probabilities."""
        return classes

    def final(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Labels of the result, given the samples and labels after the last step."""
        return labels


class Labels(Protocol):
    """Settings of a labelling; itself without state.

    Attributes:
        soft: the result's labels are probabilities, not classes; so they take bytes.
    """

    soft: ClassVar[bool]

    @property
    def learning_rate(self) -> float | None:
        """Of the labels while distilling; None keeps them as they are."""
        ...

    def open(self, problem: Problem) -> Labelling:
        """Prepare the labelling of one run, such as a teacher."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


def on_simplex(rows: Tensor) -> Tensor:
    """The nearest probabilities: each row (n, classes) projected onto the simplex (Duchi et al. 2008, figure 1)."""
    descending = rows.sort(dim=1, descending=True).values
    excess = descending.cumsum(dim=1) - 1
    positions = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    support = (descending * positions > excess).sum(dim=1, keepdim=True)
    threshold = excess.gather(1, support - 1) / support
    return (rows - threshold).clamp(min=0)
