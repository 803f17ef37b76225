"""CutMix (Yun et al. 2019): a box of each sample is taken from another one, and so is that share of its label."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedcl_distill.seeding import generator_for


def cutmix(inputs: Tensor, labels: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Mix the samples of a batch; one box for all, whose area is uniformly distributed until it is cut at the edges.

    Args:
        inputs: float (n, channels, height, width).
        labels: float (n, classes) probabilities.
        seed: names the box and the partners.

    Returns:
        Inputs and labels, new tensors of the same shapes.
    """
    generator = generator_for(seed, "cutmix")
    partners = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    side = math.sqrt(float(torch.rand((), generator=generator)))
    rows, columns = (_stretch(size, side, generator) for size in inputs.shape[2:])
    mixed = inputs.clone()
    mixed[:, :, rows, columns] = inputs[partners][:, :, rows, columns]
    share = mixed[0, 0, rows, columns].numel() / mixed[0, 0].numel()
    return mixed, (1 - share) * labels + share * labels[partners]


def _stretch(size: int, fraction: float, generator: torch.Generator) -> slice:
    """About ``fraction`` of ``size`` positions around a random one, less what sticks out."""
    length = int(size * fraction)
    centre = int(torch.randint(size, (), generator=generator))
    start = centre - length // 2
    return slice(max(start, 0), max(min(start + length, size), 0))
