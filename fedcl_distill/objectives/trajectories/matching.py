"""Trajectory matching, MTT (Cazenavette et al. 2022): training on the synthetic data must lead where experts went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.inner_training.student import Student, Weights, weights_of
from fedcl_distill.objectives.trajectories.coordinates import AllCoordinates, Coordinates
from fedcl_distill.objectives.trajectories.through_training import Replayed, TrajectoryGradient
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class Segment:
    """A piece of an expert's path: its weights at both ends, and how a student's samples are augmented on the way."""

    start: Weights
    end: Weights
    augmentation: Augmentation


@dataclass(frozen=True)
class TrajectoryMatching(Objective[Segment]):
    """‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖² (equation 2), where θ_N is θ*_t after N SGD steps on the synthetic data.

    1 is a student that stands still. Labels may be soft and learned: they enter the student's cross entropy. The
    student's learning rate is learned with the samples; whoever trains on the result finds it in the provenance.

    Attributes:
        steps: N.
        batch_size: synthetic samples a student step; None takes all.
        learning_rate: the student's, before the first synthetic step (the authors take the experts').
        learning_rate_rate: at which the optimiser of the samples learns it.
        augmentation: of the student's batches, drawn anew at every step and for every sample; None takes what suits
            the data. (The authors' code draws one DSA operation a batch, and its strength for every sample.)
        coordinates: which weights are compared.
        gradient: how the end of the student's path is differentiated.

    Raises:
        SettingsError: on construction, if a number is not positive.
    """

    needs_goal: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    steps: int = 20
    batch_size: int | None = None
    learning_rate: float = 0.01
    learning_rate_rate: float = 1e-5
    augmentation: Augmentation | None = None
    coordinates: Coordinates = field(default_factory=AllCoordinates)
    gradient: TrajectoryGradient = field(default_factory=Replayed)

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise SettingsError("trajectory matching needs at least one student step, and one sample a batch")
        if self.learning_rate <= 0 or self.learning_rate_rate < 0:
            raise SettingsError("a student needs a positive learning rate, and a rate of it that is not negative")

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "trajectory matching",
            "student_steps": self.steps,
            "student_batch_size": self.batch_size,
            "student_learning_rate": self.learning_rate,
            "student_learning_rate_rate": self.learning_rate_rate,
            "student_augmentation": None if self.augmentation is None else self.augmentation.settings(),
            **self.coordinates.settings(),
            **self.gradient.settings(),
        }

    def learned(self) -> dict[str, Learned]:
        return {"learning_rate": Learned(torch.tensor(self.learning_rate), self.learning_rate_rate)}

    def target(self, view: View, real: RealSide) -> Segment:
        assert view.goal is not None, "the engine pairs this objective with a source that gives goals"
        augmentation = self.augmentation or augmentation_for(real.data)
        return Segment(weights_of(view.network), weights_of(view.goal), augmentation)

    def losses(self, view: View, target: Segment, synthetic: SyntheticSide) -> Iterator[Tensor]:
        student = Student(
            view.network, synthetic.inputs, synthetic.labels, self.batch_size, target.augmentation, view.seed
        )

        def distance(weights: Weights) -> Tensor:
            return relative_distance(weights, target.start, target.end, self.coordinates)

        rate = synthetic.learned["learning_rate"]
        yield self.gradient.loss(student, target.start, self.steps, rate, distance)


def relative_distance(student: Weights, start: Weights, end: Weights, coordinates: Coordinates) -> Tensor:
    """Squared distance of ``student`` to ``end``, as a fraction of that of ``start``, over the coordinates kept.

    0 where no coordinate is kept, or where the expert did not move and neither did the student.
    """
    missed, way = [], []
    for here, there, then in zip(student, start, end, strict=True):
        kept = coordinates.keep(here.detach(), then).to(here.dtype)
        missed.append((kept * (here - then).square()).sum())
        way.append((kept * (there - then).square()).sum())
    whole = torch.stack(way).sum()
    return torch.stack(missed).sum() / whole.clamp(min=torch.finfo(whole.dtype).tiny)
