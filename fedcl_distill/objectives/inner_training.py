"""Training a student inside a loss, and the adjoint of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, Draw
from fedcl_distill.networks.base import Network, micro_batch_size
from fedcl_distill.seeding import generator_for

Weights = tuple[Tensor, ...]
"""The parameters of a network, in the order of ``network.parameters()``."""


def weights_of(network: Network) -> Weights:
    """The weights of ``network``, as leaves that share its memory."""
    return tuple(parameter.detach() for parameter in network.parameters())


@dataclass(frozen=True)
class Batch:
    """The samples of one step: int64 (n,) rows of the synthetic set, and their augmentation, drawn sample by sample."""

    rows: Tensor
    draw: Draw


@dataclass(frozen=True)
class Student:
    """What a student trains on. Batches and augmentations are named by the step, so that a step can be replayed.

    Attributes:
        network: gives the architecture; its own weights are left alone.
        inputs: float (n, …) synthetic inputs.
        labels: int64 (n,) classes, or float (n, classes) probabilities.
        batch_size: samples a step; None takes all. Samples are passed through in random order, as in MTT's code.
        augmentation: drawn anew at every step.
        seed: names all draws.
    """

    network: Network
    inputs: Tensor
    labels: Tensor
    batch_size: int | None
    augmentation: Augmentation
    seed: int

    def batch(self, step: int) -> Batch:
        """The batch of step number ``step``."""
        rows = self._rows(step)
        generator = generator_for(self.seed, "inner augmentation", step)
        return Batch(rows, self.augmentation.draw(len(rows), tuple(self.inputs.shape[1:]), generator))

    def _rows(self, step: int) -> Tensor:
        count, device = len(self.inputs), self.inputs.device
        if self.batch_size is None or self.batch_size >= count:
            return torch.arange(count, device=device)
        per_pass = -(-count // self.batch_size)
        order = torch.randperm(count, generator=generator_for(self.seed, "inner order", step // per_pass))
        return torch.split(order, self.batch_size)[step % per_pass].to(device)

    def positions(self, batch: Batch) -> Sequence[Tensor]:
        """Positions within ``batch``, cut into parts that suit the processor's caches."""
        return torch.split(torch.arange(len(batch.rows), device=self.inputs.device), micro_batch_size(self.inputs))

    def loss(self, weights: Weights, batch: Batch, positions: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """What ``inputs`` and ``labels``, at ``positions`` of ``batch``, add to the batch's mean cross entropy."""
        names = (name for name, _ in self.network.named_parameters())
        named = dict(zip(names, weights, strict=True))
        scores = functional_call(self.network, named, (batch.draw(inputs, positions),))
        return F.cross_entropy(scores, labels, reduction="sum") / len(batch.rows)

    def addends(self, weights: Weights, step: int) -> Iterator[Tensor]:
        """Scalars that add up to the mean cross entropy of step ``step`` at ``weights``, with their graph."""
        batch = self.batch(step)
        for positions in self.positions(batch):
            rows = batch.rows[positions]
            yield self.loss(weights, batch, positions, self.inputs[rows], self.labels[rows])


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
