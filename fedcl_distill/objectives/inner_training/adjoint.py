"""SGD with momentum on the synthetic samples, differentiated backwards through its steps.

With g_t the gradient of the student's loss at θ_t on batch t, torch's SGD takes v_{t+1} = μ v_t + g_t and
θ_{t+1} = θ_t − α_t v_{t+1} from v_0 = 0. Let λ_t be the derivative of the end loss by θ_t, and m_t by v_t, the latter
through later steps too. Then, from the last step to the first (Maclaurin et al. 2015; Deng and Russakovsky
2022),

    m_{t+1} = μ m_{t+2} − α_t λ_{t+1},    ∂L/∂α_t = −⟨v_{t+1}, λ_{t+1}⟩,
    ∂L/∂x += (∂g_t/∂x)ᵀ m_{t+1},          λ_t = λ_{t+1} + H_t m_{t+1},

with H_t the Hessian of step t. Weights and velocities are stored rather than run backwards: μ v_t = v_{t+1} − g_t
loses bits with every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.objectives.inner_training.student import Student, Weights

EndLoss = Callable[[Weights], Iterable[Tensor]]
"""Scalars that add up to the loss at the weights after the last step, differentiable."""


@dataclass(frozen=True)
class InnerTraining:
    """How a student trains.

    Attributes:
        student: gives the loss of each step.
        rates: float (steps,) learning rates; may carry a graph.
        momentum: μ.
    """

    student: Student
    rates: Tensor
    momentum: float = 0.0

    def loss(self, start: Weights, differentiated: range, end: EndLoss) -> Tensor:
        """The loss after as many steps as ``differentiated`` ends at, differentiated through those it names.

        Differentiable in the student's inputs, its labels where these require a gradient, and the rates.
        """
        rates = self.rates.detach().tolist()
        weights, velocity = start, tuple(torch.zeros_like(weight) for weight in start)
        visited = []
        for step in range(differentiated.stop):
            before = weights
            weights, velocity = self._step(weights, velocity, step, rates[step])
            if step >= differentiated.start:
                visited.append((before, velocity))
        value, pull = value_and_gradient(end, weights)
        by_inputs = torch.zeros_like(self.student.inputs)
        by_labels = torch.zeros_like(self.student.labels)
        by_rates = torch.zeros_like(self.rates)
        push = [torch.zeros_like(weight) for weight in start]
        for step in reversed(differentiated):
            before, velocity = visited.pop()
            by_rates[step] = -inner_product(velocity, pull)
            push = [self.momentum * late - rates[step] * now for late, now in zip(push, pull, strict=True)]
            back = self._pull(before, step, push, by_inputs, by_labels)
            pull = [now + more for now, more in zip(pull, back, strict=True)]
        pairs = [(self.student.inputs, by_inputs), (self.student.labels, by_labels), (self.rates, by_rates)]
        return with_derivatives(value, [(variable, by) for variable, by in pairs if variable.requires_grad])

    def _step(self, weights: Weights, velocity: Weights, step: int, rate: float) -> tuple[Weights, Weights]:
        """Weights and velocity after step number ``step``, without a graph."""
        gradient = step_gradient(self.student, weights, step)
        velocity = tuple(self.momentum * old + new for old, new in zip(velocity, gradient, strict=True))
        return tuple(w - rate * v for w, v in zip(weights, velocity, strict=True)), velocity

    def _pull(
        self, weights: Weights, step: int, push: list[Tensor], by_inputs: Tensor, by_labels: Tensor
    ) -> list[Tensor]:
        """H_t m; what inputs and labels contribute, (∂g_t/∂x)ᵀ m, is added to ``by_inputs`` and ``by_labels``."""
        leaves, student = leaves_of(weights), self.student
        back = [torch.zeros_like(weight) for weight in weights]
        batch = student.batch(step)
        for positions in student.positions(batch):
            rows = batch.rows[positions]
            samples = [student.inputs.detach()[rows].requires_grad_(), student.labels.detach()[rows]]
            if student.labels.requires_grad:
                samples[1].requires_grad_()
            loss = student.loss(leaves, batch, positions, *samples)
            gradient = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
            wanted = [one for one in samples if one.requires_grad]
            pulled = torch.autograd.grad(inner_product(gradient, push), [*wanted, *leaves], materialize_grads=True)
            for total, part in zip((by_inputs, by_labels), pulled[: len(wanted)], strict=False):
                total.index_add_(0, rows, part)
            back = [total + part for total, part in zip(back, pulled[len(wanted) :], strict=True)]
        return back


def with_derivatives(value: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """``value`` as a function of the first of each pair, linear, that has the second as its derivative."""
    for variable, derivative in pairs:
        value = value + ((variable - variable.detach()) * derivative).sum()
    return value


def step_gradient(student: Student, weights: Weights, step: int) -> list[Tensor]:
    """The gradient of step number ``step`` at ``weights``, without a graph."""
    leaves = leaves_of(weights)
    constant = replace(student, inputs=student.inputs.detach(), labels=student.labels.detach())
    return gradient_of(constant.addends(leaves, step), leaves)[1]


def leaves_of(weights: Weights) -> Weights:
    """The same values, as leaves that require gradients."""
    return tuple(weight.detach().requires_grad_() for weight in weights)


def value_and_gradient(end: EndLoss, weights: Weights) -> tuple[Tensor, list[Tensor]]:
    """The end loss and its gradient at ``weights``, without a graph."""
    leaves = leaves_of(weights)
    return gradient_of(end(leaves), leaves)


def gradient_of(addends: Iterable[Tensor], leaves: Weights) -> tuple[Tensor, list[Tensor]]:
    """The sum of ``addends`` and its gradient; each addend is differentiated before the next is asked for."""
    value = leaves[0].new_zeros(())
    gradient = [torch.zeros_like(leaf) for leaf in leaves]
    for addend in addends:
        for total, part in zip(gradient, torch.autograd.grad(addend, leaves, materialize_grads=True), strict=True):
            total += part
        value = value + addend.detach()
    return value, gradient


def inner_product(left: Iterable[Tensor], right: Iterable[Tensor]) -> Tensor:
    """Sum of the products of all entries, a scalar."""
    return torch.stack([(one * other).sum() for one, other in zip(left, right, strict=True)]).sum()
