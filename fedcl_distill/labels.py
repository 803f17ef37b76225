"""What synthetic samples are labelled with: their class, what is learned, what a teacher says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import SettingsError
from fedcl_distill.micro_batches import micro_batches
from fedcl_distill.networks import ArchitectureLike, Network, architecture_for, as_architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import TrainConfig, fit, train_config_for


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

    def open(self, problem: SetupContext) -> Labelling:
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


@dataclass(frozen=True)
class HardLabels:
    """Each sample keeps the class it was made for."""

    soft: ClassVar[bool] = False

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: SetupContext) -> Labelling:
        return Labelling()

    def settings(self) -> dict[str, Any]:
        return {"labels": "hard"}


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

    def open(self, problem: SetupContext) -> Labelling:
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
        train_config: how they are trained; None takes :func:`~fedcl_distill.training.train_config_for`.
        teachers: how many; the label is the mean of their probabilities.

    Raises:
        SettingsError: on construction, if the temperature is not positive or there is no teacher.
    """

    soft: ClassVar[bool] = True
    temperature: float = 1.0
    architecture: ArchitectureLike | None = None
    train_config: TrainConfig | None = None
    teachers: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise SettingsError(f"a temperature must be positive and finite, got {self.temperature}")
        if self.teachers < 1:
            raise SettingsError(f"labels need at least one teacher, got {self.teachers}")
        if not isinstance(self.train_config, TrainConfig | None):
            raise SettingsError("a teacher's train_config is an object; it has no text form")
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: SetupContext) -> Labelling:
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
            "label_teacher_epochs": None if self.train_config is None else self.train_config.epochs,
        }

    def _train(self, problem: SetupContext, number: int) -> Network:
        real = problem.real
        seed = derive_seed(problem.seed, "teacher", number)
        architecture = architecture_for(self.architecture, real.sample_shape, _WIDTH)
        teacher = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=problem.device)
        train_config = self.train_config or train_config_for(real)
        fit(teacher, real.inputs(), real.labels, train_config, seed=seed, keep_going=problem.has_time)
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
            torch.cat([softened(teacher(part), self._temperature) for (part,) in micro_batches(inputs)])
            for teacher in self._teachers
        ]
        return torch.stack(of_teachers).mean(dim=0)


def softened(scores: Tensor, temperature: float) -> Tensor:
    """Probabilities softmax(scores / temperature), float (n, classes); of scores (n, classes)."""
    highest = scores.max(dim=1, keepdim=True).values  # taken off first, or tiny temperatures overflow
    return ((scores - highest) / temperature).softmax(dim=1)


__all__ = ["HardLabels", "Labelling", "Labels", "LearnedLabels", "TeacherLabels", "on_simplex"]
