"""What synthetic samples are labelled with: their class, what is learned, what a teacher says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import ArchitectureLike, Network, architecture_for, as_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.registry import Plain, Registry, parse
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Positive, settings, suggest
from fedcl_distill.training import TrainConfig, fit, train_config_for


class Labelling:
    """The labels of one run; each hook leaves labels as they are unless overridden."""

    def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """Labels before the first step: int64 (n,), or float32 (n, classes) probabilities."""
        return classes

    def final(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Labels of the result, given the samples and labels after the last step."""
        return labels


@runtime_checkable
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


LABELS: Registry[Labels] = Registry("labels", "fedcl_distill.labels", Labels)
register_labels = LABELS.register


def label_names(*, learned: bool) -> list[str]:
    """Names of labels, sorted; without those that are ``learned``, as registering says, where nothing reads them."""
    return sorted(entry.name for entry in LABELS if learned or not entry.facts.get("learned"))


def build_labels(value: Labels | Plain, *, learned: bool) -> Labels:
    """The labels that ``value`` is or describes, such as "teacher:temperature=4".

    Args:
        value: an object, a text or a mapping.
        learned: whether labels can be learned: the objective reads them (:attr:`Objective.reads_labels`).

    Raises:
        SettingsError: the name or a setting is unknown, or the labels are learned where nothing reads them.
    """
    if isinstance(value, str | Mapping):
        name = str((parse(value) if isinstance(value, str) else value).get("name"))
        known = label_names(learned=learned)
        if name not in LABELS:
            raise SettingsError(suggest("labels", name, known))
        if name not in known:
            raise SettingsError(
                f"labels {name!r} cannot be learned by what takes no steps or goes by classes alone; "
                f"known here: {', '.join(known)}"
            )
    return LABELS.build(value)


def on_simplex(rows: Tensor) -> Tensor:
    """The nearest probabilities: each row (n, classes) projected onto the simplex (Duchi et al. 2008, figure 1)."""
    descending = rows.sort(dim=1, descending=True).values
    excess = descending.cumsum(dim=1) - 1
    positions = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    support = (descending * positions > excess).sum(dim=1, keepdim=True)
    threshold = excess.gather(1, support - 1) / support
    return (rows - threshold).clamp(min=0)


@register_labels("hard")
@settings
class HardLabels:
    """Each sample keeps the class it was made for."""

    soft: ClassVar[bool] = False

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: SetupContext) -> Labelling:
        return Labelling()


@register_labels("learned", learned=True)
@settings
class LearnedLabels:
    """Each sample has a probability for every class, which is learned.

    See Bohdal et al. 2020, who learn labels alone, and Sucholutsky and Schonlau 2021, who learn both. The engine
    projects labels onto the probability simplex after every step, so that any trainer can use the result.

    Attributes:
        learning_rate: of the labels, by the optimiser that learns the samples; what suits depends on the objective.
        start: what labels are before the first step: one-hot by default, or a teacher's (Cui et al. 2023, TESLA).

    Raises:
        SettingsError: on construction, if the rate is not positive or ``start`` is itself learned.
    """

    soft: ClassVar[bool] = True
    learning_rate: Positive = 0.01
    start: Annotated[Labels, LABELS] = field(default_factory=HardLabels)

    def __post_init__(self) -> None:
        if self.start.learning_rate is not None:
            raise SettingsError("LearnedLabels: start must be hard labels or a teacher's, got learned ones")

    def open(self, problem: SetupContext) -> Labelling:
        return _Learned(self.start.open(problem), problem.real.num_classes)


class _Learned(Labelling):
    def __init__(self, start: Labelling, num_classes: int) -> None:
        self._start, self._num_classes = start, num_classes

    def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
        labels = self._start.initial(inputs, classes)
        return labels if labels.ndim == 2 else F.one_hot(labels, self._num_classes).to(inputs.dtype)


_WIDTH = 64


@register_labels("teacher")
@settings
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
    temperature: Positive = 1.0
    architecture: ArchitectureLike | None = None
    train_config: TrainConfig | None = None
    teachers: Count = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    @property
    def learning_rate(self) -> float | None:
        return None

    def open(self, problem: SetupContext) -> Labelling:
        """Train the teachers.

        Raises:
            DivergenceError: a teacher's loss stopped being finite.
        """
        train_config = self.train_config or train_config_for(problem.real)
        keep_going = problem.counting(self.teachers * train_config.steps(len(problem.real)), "teachers")
        teachers = [self._train(problem, train_config, 0, keep_going)]
        while len(teachers) < self.teachers and problem.has_time():
            teachers.append(self._train(problem, train_config, len(teachers), keep_going))
        return _Taught(teachers, self.temperature)

    def _train(
        self, problem: SetupContext, train_config: TrainConfig, number: int, keep_going: Callable[[], bool]
    ) -> Network:
        real = problem.real
        seed = derive_seed(problem.seed, "teacher", number)
        architecture = architecture_for(self.architecture, real.sample_shape, _WIDTH)
        teacher = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=problem.device)
        fit(teacher, real.inputs(), real.labels, train_config, seed=seed, keep_going=keep_going)
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


__all__ = [
    "LABELS",
    "HardLabels",
    "Labelling",
    "Labels",
    "LearnedLabels",
    "TeacherLabels",
    "build_labels",
    "label_names",
    "on_simplex",
    "register_labels",
]
