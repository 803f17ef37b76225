"""Trajectory matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.networks import check_weights_alone
from fedcl_distill.objectives.base import Learned, MatchContext, Objective, register_objective
from fedcl_distill.objectives.inner_training import (
    InnerTraining,
    Student,
    Weights,
    inner_product,
    leaves_of,
    step_gradient,
    value_and_gradient,
    weights_of,
    with_derivatives,
)
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Count, Fraction, NonNegative, Positive, settings


@runtime_checkable
class Coordinates(Protocol):
    """Chooses weights, by what the student and the expert made of them."""

    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        """bool, of the shape of both: which weights of one layer take part in the loss; constant, without a graph."""
        ...


COORDINATES: Registry[Coordinates] = Registry("coordinates", "fedcl_distill.coordinates", Coordinates)


@COORDINATES.register("all")
@settings
class AllCoordinates:
    """Every weight (Cazenavette et al. 2022)."""

    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        return torch.ones_like(student, dtype=torch.bool)


@COORDINATES.register("pruned")
@settings
class PrunedCoordinates:
    """Only weights that the student can match (Li et al. 2022, Dataset distillation using parameter pruning).

    A weight is left out of both norms of the loss where the similarity of the student's and the expert's value is
    below a threshold. The similarity of two numbers is the ratio of the smaller to the larger magnitude: 1 for equal
    ones, falling to 0 for ones of different scale; 0 for opposite signs, 1 for two zeros. The paper could not be read
    for its exact measure: both this one and the default threshold are of our choosing.

    Attributes:
        threshold: the smallest similarity that is kept, in [0, 1]; 0 keeps all.

    Raises:
        SettingsError: on construction, if the threshold lies outside [0, 1].
    """

    threshold: Fraction = 0.1

    @torch.no_grad()
    def keep(self, student: Tensor, expert: Tensor) -> Tensor:
        smaller = torch.minimum(student.abs(), expert.abs())
        larger = torch.maximum(student.abs(), expert.abs())
        # Compared as products, so that two zeros need no division; unlike signs have similarity 0.
        similarity_of_signed = torch.where(student * expert < 0, torch.zeros_like(smaller), smaller)
        return similarity_of_signed >= self.threshold * larger


EndLoss = Callable[[Weights], Tensor]
"""The loss at the weights after the last step, differentiable."""


@runtime_checkable
class TrajectoryGradient(Protocol):
    """Turns a student, a number of steps and a loss at their end into a scalar that can be differentiated."""

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        """The loss after ``steps`` steps from ``start``.

        Differentiable in the student's inputs, in its labels where these require a gradient, and in ``learning_rate``,
        a scalar.
        """
        ...


TRAJECTORY_GRADIENTS: Registry[TrajectoryGradient] = Registry(
    "trajectory gradient", "fedcl_distill.trajectory_gradients", TrajectoryGradient
)


@TRAJECTORY_GRADIENTS.register("unrolled")
@settings
class Unrolled:
    """Exact, by autograd through all steps at once (Cazenavette et al. 2022).

    Its memory holds the activations of every step.
    """

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        weights = leaves_of(start)
        for step in range(steps):
            total = torch.stack(list(student.addends(weights, step))).sum()
            gradient = torch.autograd.grad(total, weights, create_graph=True, materialize_grads=True)
            weights = tuple(w - learning_rate * g for w, g in zip(weights, gradient, strict=True))
        return end(weights)


@TRAJECTORY_GRADIENTS.register("replayed")
@settings
class Replayed:
    """Exact as well, by replaying the steps backwards from their stored weights.

    Its memory holds N times the weights and the activations of one part of a batch, and it takes as long as
    :class:`Unrolled`, which it equals but for rounding.
    """

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        training = InnerTraining(student, learning_rate.expand(steps))
        return training.loss(start, range(steps), lambda weights: [end(weights)])


@TRAJECTORY_GRADIENTS.register("tesla")
@settings
class Tesla:
    """Approximate, with memory constant in the number of steps (Cui et al. 2023, equations 5 and 6).

    The squared distance is expanded into terms, each differentiated by the sample it holds *at constant θ_i*: how
    earlier steps move later gradients, through θ_i, is left out, i.e. the factors (I − α H_j), j > i, of the adjoints
    above (λ_N in place of λ_{i+1}), for the samples and the learning rate alike. Therefore it equals the exact
    gradient for one step, and for any number of steps up to a relative error of the order α N ‖H‖. The loss itself is
    exact. The authors' code loses a factor of 2 in the sample gradient (its issue 5), which a learning rate absorbs.

    The weights are not stored: the second pass walks forwards once more.
    """

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        weights = start
        for step in range(steps):
            weights = _stepped(weights, step_gradient(student, weights, step), learning_rate)
        value, adjoint = value_and_gradient(lambda reached: [end(reached)], weights)
        gathered = _Gathered.zeros(student, learning_rate)
        weights = start
        for step in range(steps):
            gradient = _gather(student, leaves_of(weights), step, adjoint, gathered)
            weights = _stepped(weights, gradient, learning_rate)
        return gathered.attached_to(value, student, learning_rate)


@dataclass
class _Gathered:
    """The derivative of the loss by inputs, labels (None where they are not learned) and learning rate, as it grows."""

    inputs: Tensor
    labels: Tensor | None
    learning_rate: Tensor
    scale: Tensor

    @classmethod
    def zeros(cls, student: Student, learning_rate: Tensor) -> _Gathered:
        labels = torch.zeros_like(student.labels) if student.labels.requires_grad else None
        rate = learning_rate.detach()
        return cls(torch.zeros_like(student.inputs), labels, torch.zeros_like(rate), rate)

    def add(self, rows: Tensor, inputs: Tensor, labels: Tensor | None, along: Tensor) -> None:
        """Add what the samples ``rows`` contribute: derivatives of ``along`` = −gᵀλ, which α multiplies."""
        self.inputs.index_add_(0, rows, inputs * self.scale)
        if self.labels is not None and labels is not None:
            self.labels.index_add_(0, rows, labels * self.scale)
        self.learning_rate += along.to(self.learning_rate.dtype)

    def attached_to(self, value: Tensor, student: Student, learning_rate: Tensor) -> Tensor:
        """``value``, as a function that has these derivatives."""
        pairs = [(student.inputs, self.inputs), (learning_rate, self.learning_rate)]
        if self.labels is not None:
            pairs.append((student.labels, self.labels))
        return with_derivatives(value, pairs)


def _stepped(weights: Weights, gradient: Sequence[Tensor], learning_rate: Tensor) -> Weights:
    return tuple(w - learning_rate.detach() * g for w, g in zip(weights, gradient, strict=True))


def _gather(student: Student, weights: Weights, step: int, adjoint: Sequence[Tensor], gathered: _Gathered) -> Weights:
    """Add what step ``step`` contributes at constant ``weights`` (leaves) to ``gathered``; returns its gradient g."""
    gradient = [torch.zeros_like(weight) for weight in weights]
    batch = student.batch(step)
    for positions in student.positions(batch):
        rows = batch.rows[positions]
        samples = [student.inputs.detach()[rows].requires_grad_()]
        labels = student.labels.detach()[rows]
        if gathered.labels is not None:
            samples.append(labels.requires_grad_())
        loss = student.loss(weights, batch, positions, samples[0], labels)
        parts = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        along = -inner_product(parts, adjoint)
        pulled = torch.autograd.grad(along, samples, materialize_grads=True)
        gathered.add(rows, pulled[0], pulled[1] if len(samples) == 2 else None, along.detach())
        for total, part in zip(gradient, parts, strict=True):
            total += part.detach()
    return tuple(gradient)


@dataclass(frozen=True)
class Segment:
    """A piece of an expert's path: its weights at both ends, and how a student's samples are augmented on the way."""

    start: Weights
    end: Weights
    augmentation: Augmentation


@register_objective("trajectory-matching")
@settings
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

    needs_target_network: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    steps: Count = 20
    batch_size: Count | None = None
    learning_rate: Positive = 0.01
    learning_rate_rate: NonNegative = 1e-5
    augmentation: Augmentation | None = None
    coordinates: Annotated[Coordinates, COORDINATES] = field(default_factory=AllCoordinates)
    gradient: Annotated[TrajectoryGradient, TRAJECTORY_GRADIENTS] = field(default_factory=Replayed)

    def learned(self) -> dict[str, Learned]:
        return {"learning_rate": Learned(torch.tensor(self.learning_rate), self.learning_rate_rate)}

    def target(self, view: MatchContext, real: RealSampler) -> Segment:
        assert view.target_network is not None, "the engine pairs this objective with a source that gives goals"
        check_weights_alone(view.network, "trajectory matching")
        augmentation = augmentation_for(real.data, self.augmentation)
        return Segment(weights_of(view.network), weights_of(view.target_network), augmentation)

    def losses(self, view: MatchContext, target: Segment, synthetic: SyntheticBatch) -> Iterator[Tensor]:
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
