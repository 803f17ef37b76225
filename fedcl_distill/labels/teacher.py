"""Labels that networks trained on the real data give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels.base import Labelling
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.recipes import recipe_for_real
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import Recipe, fit

_WIDTH = 64


@dataclass(frozen=True)
class TeacherLabels:
    """The class probabilities of a teacher, softened by a temperature (Hinton et al. 2015, equation 1).

    Teachers are trained on the real data before the first step. While distilling, labels are those of the initial
    samples; the result has those of the final ones. A budget in seconds ends the training of teachers early; one
    teacher takes at least one step.

    Attributes:
        temperature: divides the class scores before the softmax: large ones make all classes alike, small ones leave
            the most probable alone.
        architecture: of the teachers; None takes a ConvNet for images and an MLP for features, of width 64.
        recipe: how they are trained; None takes :func:`~fedcl_distill.recipes.recipe_for_real`.
        teachers: how many; the label is the mean of their probabilities.

    Raises:
        SettingsError: on construction, if the temperature is not positive or there is no teacher.
    """

    soft: ClassVar[bool] = True
    temperature: float = 1.0
    architecture: Architecture | None = None
    recipe: Recipe | None = None
    teachers: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise SettingsError(f"a temperature must be positive and finite, got {self.temperature}")
        if self.teachers < 1:
            raise SettingsError(f"labels need at least one teacher, got {self.teachers}")
        if not isinstance(self.architecture, Architecture | None) or not isinstance(self.recipe, Recipe | None):
            raise SettingsError("a teacher's architecture and recipe are objects; they have no text form")

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: Problem) -> Labelling:
        """Train the teachers.

        Raises:
            DivergenceError: a teacher's loss stopped being finite.
        """
        teachers = [self._train(problem, 0)]
        while len(teachers) < self.teachers and problem.has_time():
            teachers.append(self._train(problem, len(teachers)))
        return _Taught(teachers, self.temperature)

    def settings(self) -> dict[str, Any]:
        return {
            "labels": "teacher",
            "label_temperature": self.temperature,
            "label_teachers": self.teachers,
            "label_teacher": str(self.architecture or "default"),
            "label_teacher_epochs": None if self.recipe is None else self.recipe.epochs,
        }

    def _train(self, problem: Problem, number: int) -> Network:
        real = problem.real
        seed = derive_seed(problem.seed, "teacher", number)
        architecture = self.architecture or default_architecture(real.sample_shape, _WIDTH)
        teacher = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=problem.device)
        recipe = self.recipe or recipe_for_real(real)
        fit(teacher, real.inputs(), real.labels, recipe, seed=seed, keep_going=problem.has_time)
        return teacher.eval().requires_grad_(False)


class _Taught(Labelling):
    def __init__(self, teachers: Sequence[Network], temperature: float) -> None:
        self._teachers, self._temperature = teachers, temperature

    def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
        return self._probabilities(inputs)

    def final(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self._probabilities(inputs)

    @torch.no_grad()
    def _probabilities(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes)."""
        of_teachers = [
            torch.cat([softened(teacher(part), self._temperature) for (part,) in chunked(inputs)])
            for teacher in self._teachers
        ]
        return torch.stack(of_teachers).mean(dim=0)


def softened(scores: Tensor, temperature: float) -> Tensor:
    """Probabilities softmax(scores / temperature), float (n, classes); of scores (n, classes)."""
    highest = scores.max(dim=1, keepdim=True).values  # taken off first, or tiny temperatures overflow
    return ((scores - highest) / temperature).softmax(dim=1)
