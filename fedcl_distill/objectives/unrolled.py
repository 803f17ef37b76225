"""Performance matching through unrolled training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.networks import Network, check_weights_alone
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.objectives.base import Learned, MatchContext, Objective, register_objective
from fedcl_distill.objectives.inner_training import Batch, InnerTraining, Student, Weights, weights_of
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, Momentum, Positive, settings


@runtime_checkable
class InnerBatches(Protocol):
    """Chooses the samples of a step."""

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        """int64 (m,): positions in ``classes`` (n,) for step number ``step`` of the training named by ``seed``."""
        ...


INNER_BATCHES: Registry[InnerBatches] = Registry("inner batches", "fedcl_distill.inner_batches", InnerBatches)


@INNER_BATCHES.register("fixed")
@settings
class FixedBatches:
    """The samples of every class dealt out to ``count`` batches, taken in turn: each sample has its steps (DD).

    With as many samples a class as batches, a batch holds one of each class (Wang et al. 2018). Where no class has so
    many samples there are fewer batches; one sample a class makes one batch of all.
    """

    count: Count = 10

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        order = classes.argsort(stable=True)
        counts = torch.bincount(classes)
        firsts = counts.cumsum(0) - counts
        within = torch.empty_like(classes)
        within[order] = torch.arange(len(classes), device=classes.device) - firsts[classes[order]]
        batches = min(self.count, int(counts.max()))
        return torch.nonzero(within % batches == step % batches).flatten()


@INNER_BATCHES.register("random")
@settings
class RandomBatches:
    """``size`` samples a step, in random order and each once a pass; None takes all samples at every step."""

    size: Count | None = None

    def rows(self, classes: Tensor, step: int, seed: int) -> Tensor:
        count = len(classes)
        if self.size is None or self.size >= count:
            return torch.arange(count, device=classes.device)
        per_pass = -(-count // self.size)
        order = torch.randperm(count, generator=generator_for(seed, "inner order", step // per_pass))
        return torch.split(order, self.size)[step % per_pass].to(classes.device)


@dataclass(frozen=True)
class ScheduledStudent(Student):
    """A student whose batches are chosen by ``batches``; ``classes``, int64 (n,), are those of its samples."""

    classes: Tensor
    batches: InnerBatches

    def batch(self, step: int) -> Batch:
        rows = self.batches.rows(self.classes, step, self.seed)
        generator = generator_for(self.seed, "inner augmentation", step)
        return Batch(rows, self.augmentation.draw(len(rows), tuple(self.inputs.shape[1:]), generator))


@runtime_checkable
class InnerRates(Protocol):
    """Gives the learning rate of every step."""

    def learned(self, steps: int) -> dict[str, Learned]:
        """What is learned of them, by name."""
        ...

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        """float (steps,): positive, differentiable in what is learned; dtype and device are those of ``like``."""
        ...


INNER_RATES: Registry[InnerRates] = Registry("inner learning rates", "fedcl_distill.inner_rates", InnerRates)


@INNER_RATES.register("fixed")
@settings
class FixedRate:
    """The same rate at every step, not learned."""

    value: Positive = 0.01

    def learned(self, steps: int) -> dict[str, Learned]:
        return {}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return like.new_full((steps,), self.value)


@INNER_RATES.register("learned")
@settings
class LearnedRate:
    """One rate for all steps, learned as the softplus of a free value."""

    value: Positive = 0.02
    learning_rate: Positive = 0.01

    def learned(self, steps: int) -> dict[str, Learned]:
        return {"inner_rate": Learned(torch.tensor(inverse_softplus(self.value)), self.learning_rate)}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return F.softplus(learned["inner_rate"]).to(like).expand(steps)


@INNER_RATES.register("learned-per-step")
@settings
class LearnedRates:
    """A rate for each step, learned as softplus of free values (Wang et al. 2018, authors' code).

    Attributes:
        value: all rates before the first synthetic step.
        learning_rate: of the optimiser of the samples, for these values.
    """

    value: Positive = 0.02
    learning_rate: Positive = 0.01

    def learned(self, steps: int) -> dict[str, Learned]:
        return {"inner_rates": Learned(torch.full((steps,), inverse_softplus(self.value)), self.learning_rate)}

    def values(self, learned: Mapping[str, Tensor], like: Tensor, steps: int) -> Tensor:
        return F.softplus(learned["inner_rates"]).to(like)


def inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value`` > 0."""
    return value + math.log(-math.expm1(-value))


@runtime_checkable
class Truncation(Protocol):
    """Chooses which steps are taken, and which of them are differentiated."""

    def choose(self, steps: int, seed: int) -> range:
        """The steps that the gradient passes; all before them are taken too, those after the end are not."""
        ...


TRUNCATIONS: Registry[Truncation] = Registry("truncation", "fedcl_distill.truncations", Truncation)


@TRUNCATIONS.register("none")
@settings
class NoTruncation:
    """The gradient passes all steps."""

    def choose(self, steps: int, seed: int) -> range:
        return range(steps)


@TRUNCATIONS.register("last-steps")
@settings
class LastSteps:
    """The gradient passes the last ``window`` steps: cheaper, and biased towards samples that help late."""

    window: Count

    def choose(self, steps: int, seed: int) -> range:
        return range(max(0, steps - self.window), steps)


@TRUNCATIONS.register("random")
@settings
class RandomTruncation:
    """Each view trains for a random number of steps and differentiates the last ``window`` (Feng et al. 2024).

    Samples so help at every age of a network, at the price of a window.
    """

    window: Count

    def choose(self, steps: int, seed: int) -> range:
        width = min(self.window, steps)
        end = width + int(torch.randint(steps - width + 1, (), generator=generator_for(seed, "truncation")))
        return range(end - width, end)


@dataclass(frozen=True)
class RealBatch:
    """float (n, …) real inputs, augmented, and int64 (n,) classes."""

    inputs: Tensor
    classes: Tensor


@register_objective("unrolled-training")
@settings
class UnrolledTraining(Objective[RealBatch]):
    """Cross entropy on a real batch of the view's network after ``steps`` × ``epochs`` SGD steps on the samples.

    Its gradient is exact (within the truncation) and passes the whole training, momentum included (Wang et al. 2018;
    Deng and Russakovsky 2022). The steps are replayed backwards from stored weights, so that memory holds the weights
    and velocities of every differentiated step, but the activations of one chunk alone.
    Labels enter the cross entropy: they can be soft, or learned (Bohdal et al. 2020). The inner training starts from
    the weights of the view's network; the view's augmentation is for the real batch alone.

    Attributes:
        steps: of one inner epoch.
        epochs: how often the steps are repeated.
        batches: the synthetic samples of each step.
        rates: the learning rates.
        momentum: of the inner SGD.
        truncation: how far back the gradient goes.
        augmentation: of the synthetic batches, drawn anew for each step and sample.
        real_batch_size: real samples in each view, of all classes together.
    """

    reads_labels: ClassVar[bool] = True
    steps: Count = 10
    epochs: Count = 3
    batches: Annotated[InnerBatches, INNER_BATCHES] = field(default_factory=RandomBatches)
    rates: Annotated[InnerRates, INNER_RATES] = field(default_factory=LearnedRates)
    momentum: Momentum = 0.0
    truncation: Annotated[Truncation, TRUNCATIONS] = field(default_factory=NoTruncation)
    augmentation: Augmentation = field(default_factory=NoAugmentation)
    real_batch_size: Count = 1024

    def learned(self) -> dict[str, Learned]:
        return self.rates.learned(self.steps * self.epochs)

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> RealBatch:
        check_weights_alone(view.network, "unrolled training")
        inputs, classes = real.batch(self.real_batch_size, view.seed)
        return RealBatch(view.augment(inputs, classes), classes)

    def losses(self, view: MatchContext, target: RealBatch, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        student = ScheduledStudent(
            network=view.network,
            inputs=synthetic.inputs,
            labels=synthetic.labels,
            batch_size=None,
            augmentation=self.augmentation,
            seed=view.seed,
            classes=synthetic.classes,
            batches=self.batches,
        )
        steps = self.steps * self.epochs
        rates = self.rates.values(synthetic.learned, synthetic.inputs, steps)
        training = InnerTraining(student, rates, self.momentum)
        yield training.loss(
            weights_of(view.network),
            self.truncation.choose(steps, view.seed),
            lambda weights: mean_cross_entropy(view.network, weights, target.inputs, target.classes),
        )


def mean_cross_entropy(network: Network, weights: Weights, inputs: Tensor, classes: Tensor) -> Iterator[Tensor]:
    """Scalars that add up to the mean cross entropy at ``weights``, chunk by chunk."""
    names = [name for name, _ in network.named_parameters()]
    for part, labels in micro_batches(inputs, classes):
        scores = functional_call(network, dict(zip(names, weights, strict=True)), (part,))
        yield F.cross_entropy(scores, labels, reduction="sum") / len(inputs)
