"""One class for each sample: the labels of most papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fedcl_distill.labels.base import Labelling
from fedcl_distill.problem import Problem


@dataclass(frozen=True)
class HardLabels:
    """Each sample keeps the class it was made for."""

    soft: ClassVar[bool] = False

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: Problem) -> Labelling:
        return Labelling()

    def settings(self) -> dict[str, Any]:
        return {"labels": "hard"}
