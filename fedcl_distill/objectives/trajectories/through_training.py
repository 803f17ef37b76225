"""Ways to differentiate the end of a training run by the samples it was trained on.

A student of weights θ_0 takes N steps θ_{i+1} = θ_i − α g_i, where g_i is the gradient of its loss at θ_i on the
synthetic samples x, and ends at a loss L(θ_N). With the adjoints λ_N = ∂L/∂θ_N and λ_i = λ_{i+1} − α H_i λ_{i+1}, H_i
the Hessian of step i, the derivatives are

    ∂L/∂x = −α Σ_i (∂g_i/∂x)ᵀ λ_{i+1}    and    ∂L/∂α = −Σ_i g_iᵀ λ_{i+1}.

:class:`Unrolled` lets autograd keep the graph of all steps, :class:`Replayed` computes the same from the θ_i alone, and
:class:`Tesla` puts λ_N in the place of every λ_{i+1}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.objectives.inner_training.adjoint import (
    InnerTraining,
    inner_product,
    leaves_of,
    step_gradient,
    value_and_gradient,
    with_derivatives,
)
from fedcl_distill.objectives.inner_training.student import Student, Weights

EndLoss = Callable[[Weights], Tensor]
"""The loss at the weights after the last step, differentiable."""


class TrajectoryGradient(Protocol):
    """Turns a student, a number of steps and a loss at their end into a scalar that can be differentiated."""

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        """The loss after ``steps`` steps from ``start``.

        Differentiable in the student's inputs, in its labels where these require a gradient, and in ``learning_rate``,
        a scalar.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
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

    def settings(self) -> dict[str, Any]:
        return {"trajectory_gradient": "unrolled"}


@dataclass(frozen=True)
class Replayed:
    """Exact as well, by replaying the steps backwards from their stored weights.

    Its memory holds N times the weights and the activations of one part of a batch, and it takes as long as
    :class:`Unrolled`, which it equals but for rounding.
    """

    def loss(self, student: Student, start: Weights, steps: int, learning_rate: Tensor, end: EndLoss) -> Tensor:
        training = InnerTraining(student, learning_rate.expand(steps))
        return training.loss(start, range(steps), lambda weights: [end(weights)])

    def settings(self) -> dict[str, Any]:
        return {"trajectory_gradient": "replayed"}


@dataclass(frozen=True)
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

    def settings(self) -> dict[str, Any]:
        return {"trajectory_gradient": "tesla"}


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
