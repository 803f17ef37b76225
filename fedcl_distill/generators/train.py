"""Adversarial training of a conditional generator on the user's own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.generators.conditional import generate, initial_weights
from fedcl_distill.generators.discriminator import Discriminator, hinge
from fedcl_distill.generators.principal import Principal
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, generator_for, isolated_rng

_FEWEST_STEPS = 20


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        steps: of generator and discriminator, one each.
        batch_size: real and as many generated images a step.
        learning_rate: of Adam, β = (0, 0.99), for both networks.
        reconstruction: weight of the mean squared error of images generated from the codes of real ones.
        average: decay of the running average of the generator's weights, which is the result.
        discriminator_width: channels of its first layer; the others have twice as many.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    reconstruction: float = 10.0
    average: float = 0.99
    discriminator_width: int = 16


@dataclass(frozen=True)
class Trained:
    """A trained generator and what else finds codes for images.

    Attributes:
        weights: of the generator, float32, without a graph.
        embeddings: float32 (classes, embedding): the end of the codes of each class.
        discriminator: its features compare images.
        principal: first guesses of the beginnings of codes.
        steps: that were taken.
    """

    weights: dict[str, Tensor]
    embeddings: Tensor
    discriminator: Discriminator
    principal: Principal
    steps: int

    def codes(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n, code): first guesses for ``images``."""
        return torch.cat([self.principal.codes(images, labels), self.embeddings[labels]], dim=1)


def train(problem: Problem, shapes: Mapping[str, tuple[int, ...]], embedding: int, how: Training) -> Trained:
    """Train a generator with weights of ``shapes`` for ``how.steps``, or as long as the problem has time.

    Codes of generated images are normal noise and the learned embedding of a class, drawn evenly. Beside fooling the
    discriminator the generator has to reconstruct real images from their principal components (as that of Larsen et
    al. 2016 does from an encoder's code), which keeps it from forgetting modes and makes hundreds of steps useful.

    Args:
        embedding: length of the part of a code that names the class.
    """
    device, latent = problem.device, shapes["dense"][0] - embedding
    weights, embeddings, discriminator = _initial(problem, shapes, embedding, how)
    principal = Principal.of(problem.real, latent, problem.seed).to(device)
    free = [weight for name, weight in weights.items() if name != "mean"] + [embeddings]
    for tensor in free:
        tensor.requires_grad_()
    averaged = [tensor.detach().clone() for tensor in free]
    adam = torch.optim.Adam(free, lr=how.learning_rate, betas=(0.0, 0.99))
    opponent = torch.optim.Adam(discriminator.parameters(), lr=how.learning_rate, betas=(0.0, 0.99))
    batches, step = Batches(problem.real, how.batch_size, device), 0
    while step < how.steps and (step < _FEWEST_STEPS or problem.has_time()):
        generator = generator_for(problem.seed, "generator step", step)
        real, labels = batches.draw(generator)
        noise = torch.randn(len(real), latent, generator=generator).to(device)
        generated = generate(weights, torch.cat([noise, embeddings[labels]], dim=1))
        discriminator.requires_grad_(True)
        _minimise(opponent, hinge(discriminator(real, labels), discriminator(generated.detach(), labels)))
        discriminator.requires_grad_(False)
        codes = torch.cat([principal.codes(real, labels), embeddings[labels]], dim=1)
        error = (generate(weights, codes) - real).square().mean()
        _minimise(adam, how.reconstruction * error - discriminator(generated, labels).mean())
        step += 1
        decay = min(how.average, step / (step + 10))  # early weights must not linger
        for average, tensor in zip(averaged, free, strict=True):
            average.lerp_(tensor.detach(), 1 - decay)
    names = [name for name in weights if name != "mean"]
    result = {"mean": weights["mean"], **dict(zip(names, averaged, strict=False))}
    discriminator.requires_grad_(False)
    return Trained({name: result[name] for name in shapes}, averaged[-1], discriminator.eval(), principal, step)


class Batches:
    """Real images of evenly drawn classes, however rare some are."""

    def __init__(self, data: LabelledData, size: int, device: torch.device) -> None:
        self._data, self._size, self._device = data, size, device
        self._order = data.labels.argsort(stable=True)
        self._present = data.class_counts.nonzero()[:, 0]
        self._counts = data.class_counts[self._present]
        self._first = (data.class_counts.cumsum(0) - data.class_counts)[self._present]

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """float32 (size, …) network inputs and int64 (size,) labels."""
        classes = torch.randint(len(self._present), (self._size,), generator=generator)
        within = (torch.rand(self._size, generator=generator) * self._counts[classes]).long()
        rows = self._order[self._first[classes] + within.minimum(self._counts[classes] - 1)]
        return self._data.inputs(rows).to(self._device), self._data.labels[rows].to(self._device)


def _initial(
    problem: Problem, shapes: Mapping[str, tuple[int, ...]], embedding: int, how: Training
) -> tuple[dict[str, Tensor], Tensor, Discriminator]:
    real, device = problem.real, problem.device
    weights = initial_weights(shapes, generator_for(problem.seed, "generator"))
    rows = torch.randperm(len(real), generator=generator_for(problem.seed, "mean image"))[:10_000]
    weights["mean"] = real.inputs(rows).mean(dim=0)
    embeddings = torch.randn(real.num_classes, embedding, generator=generator_for(problem.seed, "embeddings"))
    with isolated_rng(derive_seed(problem.seed, "discriminator")):
        discriminator = Discriminator(shapes["mean"], real.num_classes, how.discriminator_width)
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    return on_device, embeddings.to(device), discriminator.to(device)


def _minimise(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
