"""Labels that are optimised together with the samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.labels.base import Labelling, Labels
from fedcl_distill.labels.hard import HardLabels
from fedcl_distill.problem import Problem


@dataclass(frozen=True)
class LearnedLabels:
    """Each sample has a probability for every class, which is learned.

    See Bohdal et al. 2020, who learn labels alone, and Sucholutsky and Schonlau 2021, who learn both. The engine
    projects labels onto the probability simplex after every step, so that any trainer can use the result.

    Attributes:
        learning_rate: of the labels, by the optimiser that learns the samples; what suits hangs on the objective.
        start: what labels are before the first step: one-hot by default, or a teacher's (Cui et al. 2023, TESLA).

    Raises:
        SettingsError: on construction, if the rate is not positive or ``start`` is itself learned.
    """

    soft: ClassVar[bool] = True
    learning_rate: float
    start: Labels = field(default_factory=HardLabels)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise SettingsError(f"learned labels need a positive learning rate, got {self.learning_rate}")
        if not hasattr(self.start, "open") or self.start.learning_rate is not None:
            raise SettingsError("learned labels start from hard ones or a teacher's")

    def open(self, problem: Problem) -> Labelling:
        return _Learned(self.start.open(problem), problem.real.num_classes)

    def settings(self) -> dict[str, Any]:
        start = self.start.settings()
        return {**start, "labels": f"learned from {start['labels']}", "label_learning_rate": self.learning_rate}


class _Learned(Labelling):
    def __init__(self, start: Labelling, num_classes: int) -> None:
        self._start, self._num_classes = start, num_classes

    def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
        labels = self._start.initial(inputs, classes)
        return labels if labels.ndim == 2 else F.one_hot(labels, self._num_classes).to(inputs.dtype)
