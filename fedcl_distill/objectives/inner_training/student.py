"""A student: plain SGD on the synthetic samples from given weights, each step repeatable by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, Draw
from fedcl_distill.chunks import chunk_size
from fedcl_distill.networks.base import Network
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
        return torch.split(torch.arange(len(batch.rows), device=self.inputs.device), chunk_size(self.inputs))

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
