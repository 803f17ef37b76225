"""Performance matching: what is trained on the synthetic samples must do well on real ones (Wang et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.objectives.inner_training.adjoint import InnerTraining
from fedcl_distill.objectives.inner_training.student import Weights, weights_of
from fedcl_distill.objectives.unrolled.batches import InnerBatches, RandomBatches, ScheduledStudent
from fedcl_distill.objectives.unrolled.rates import InnerRates, LearnedRates
from fedcl_distill.objectives.unrolled.truncation import NoTruncation, Truncation
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class RealBatch:
    """float (n, …) real inputs, augmented, and int64 (n,) classes."""

    inputs: Tensor
    classes: Tensor


@dataclass(frozen=True)
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
        real_per_batch: real samples in each view, of all classes together.
    """

    reads_labels: ClassVar[bool] = True
    steps: int = 10
    epochs: int = 3
    batches: InnerBatches = field(default_factory=RandomBatches)
    rates: InnerRates = field(default_factory=LearnedRates)
    momentum: float = 0.0
    truncation: Truncation = field(default_factory=NoTruncation)
    augmentation: Augmentation = field(default_factory=NoAugmentation)
    real_per_batch: int = 1024

    def __post_init__(self) -> None:
        if min(self.steps, self.epochs, self.real_per_batch) < 1:
            raise SettingsError("unrolled training needs steps, epochs and real_per_batch of at least 1")
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"momentum must be at least 0 and below 1, got {self.momentum}")

    def learned(self) -> dict[str, Learned]:
        return self.rates.learned(self.steps * self.epochs)

    def settings(self) -> dict[str, Any]:
        return {
            "objective": "unrolled training",
            "inner_steps": self.steps,
            "inner_epochs": self.epochs,
            "inner_momentum": self.momentum,
            "inner_augmentation": self.augmentation.settings(),
            "real_per_batch": self.real_per_batch,
            **self.batches.settings(),
            **self.rates.settings(),
            **self.truncation.settings(),
        }

    @torch.no_grad()
    def target(self, view: View, real: RealSide) -> RealBatch:
        inputs, classes = real.batch(self.real_per_batch, view.seed)
        return RealBatch(view.augment(inputs, classes), classes)

    def losses(self, view: View, target: RealBatch, synthetic: SyntheticSide) -> Iterator[Tensor]:
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
    for part, labels in chunked(inputs, classes):
        scores = functional_call(network, dict(zip(names, weights, strict=True)), (part,))
        yield F.cross_entropy(scores, labels, reduction="sum") / len(inputs)
