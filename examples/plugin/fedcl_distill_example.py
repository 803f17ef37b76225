"""What another package adds to fedcl-distill: a method with its objective, a network, augmentation, partitioner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill import (
    Budget,
    Engine,
    MatchContext,
    Objective,
    register_augmentation,
    register_method,
    register_network,
    register_objective,
    register_partitioner,
)
from fedcl_distill.augmentation import as_augmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data import LabelledData
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.optimisers import SGD
from fedcl_distill.registry import Plain
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, Positive, settings


class Embedded(NamedTuple):
    """float32 (n, embedding) real samples as the view's network sees them, and int64 (n,) their classes."""

    embeddings: Tensor
    classes: Tensor


@register_objective("mmd")
@settings
class MMD(Objective[Embedded]):
    """Squared maximum mean discrepancy of each class with a Gaussian kernel (Gretton et al. 2012, equation 5).

    Attributes:
        real_batch_per_class: real samples a class in each view.
        bandwidth: of the kernel, for embeddings of length 1.
    """

    real_batch_per_class: Count = 64
    bandwidth: Positive = 0.5

    @torch.no_grad()
    def target(self, view: MatchContext, real: RealSampler) -> Embedded:
        inputs, classes = real.draw(self.real_batch_per_class, view.seed)
        return Embedded(self._embed(view, inputs, classes), classes)

    def losses(self, view: MatchContext, target: Embedded, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        for label in target.classes.unique().tolist():
            rows, real = synthetic.classes == label, target.embeddings[target.classes == label]
            if rows.any():
                seen = self._embed(view, synthetic.inputs[rows], synthetic.classes[rows])
                yield self._kernel(seen, seen) - 2 * self._kernel(seen, real) + self._kernel(real, real)

    def _embed(self, view: MatchContext, inputs: Tensor, classes: Tensor) -> Tensor:
        return F.normalize(view.network.embed(view.augment(inputs, classes)), dim=1)

    def _kernel(self, one: Tensor, other: Tensor) -> Tensor:
        distances = 2 - 2 * one @ other.T  # of vectors of length 1; without the root, which has no slope at 0
        return (-distances / (2 * self.bandwidth**2)).exp().mean()


@register_method(
    "mmd",
    family="distribution matching",
    paper="Gretton et al. 2012, A Kernel Two-Sample Test",
    choose_when="you want to see how a method is added from outside",
)
def mmd(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Plain | None = None,
    real_batch_per_class: Count = 64,
    bandwidth: Positive = 0.5,
    learning_rate: Positive = 5.0,
) -> Engine:
    """Maximum mean discrepancy of embeddings under a new random network each step.

    Args:
        architecture: of the random networks; None takes what suits the data.
        augmentation: on both sides; None takes what suits the data.
        real_batch_per_class, bandwidth: see :class:`MMD`.
        learning_rate: of SGD.
    """
    return Engine(
        name="mmd",
        objective=MMD(real_batch_per_class, bandwidth),
        networks=FreshRandom(architecture),
        augmentation=as_augmentation(augmentation),
        optimiser=SGD(learning_rate=learning_rate),
        budget=Budget(steps=1_000),
    )


@register_network("mixer")
class Mixer(nn.Sequential):
    """A small ConvMixer (Trockman and Kolter 2022): patches, then mixing over space and over channels in turn."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 16, depth: int = 2, patch: int = 2) -> None:
        def block() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(width, width, 3, groups=width, padding=1),
                nn.GroupNorm(1, width),
                nn.GELU(),
                nn.Conv2d(width, width, 1),
                nn.GroupNorm(1, width),
                nn.GELU(),
            )

        super().__init__(
            nn.Conv2d(in_channels, width, patch, stride=patch),
            *(block() for _ in range(depth)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, num_classes),
        )


@register_augmentation("jitter")
def jitter(strength: float = 0.1):  # type: ignore[no-untyped-def]
    """A transform that shifts the brightness of each batch at random."""

    def shift(images: Tensor, generator: torch.Generator) -> Tensor:
        return images + strength * torch.randn(1, generator=generator).to(images)

    return shift


@register_partitioner("geometric")
@settings
class Geometric:
    """Shuffled samples, of which each client gets ``ratio`` times as many as the one before it (quantity skew).

    Attributes:
        ratio: of neighbouring clients' shares; 1 deals evenly.
    """

    ratio: Positive = 2.0

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        shares = self.ratio ** torch.arange(clients, dtype=torch.float64)
        free = len(data) - clients * min_size
        ends = (free * shares.cumsum(0) / shares.sum()).round().long() + min_size * torch.arange(1, clients + 1)
        order = torch.randperm(len(data), generator=generator_for(seed, "geometric"))
        return [part.sort().values for part in order.tensor_split(ends[:-1])]
