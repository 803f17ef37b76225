"""The inner loop of MTT (Cazenavette et al. 2022): a student's training, differentiated as a whole."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.seeding import generator_for
from simulations.plain.network import PlainConvNet


def plain_trajectory_step(
    network: PlainConvNet,
    start: dict[str, Tensor],
    end: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: Tensor,
    batch_size: int,
    seed: int,
) -> float:
    """Loss of one outer step; leaves its gradient in ``images`` and ``learning_rate``.

    Args:
        network: gives the architecture.
        start, end: the expert's weights by name, where the student starts and where it should end.
        images: float32 (n, channels, height, width), a leaf.
        labels: int64 (n,).
        steps: of the student.
        learning_rate: scalar leaf.
        batch_size: images in each of the student's steps.
        seed: fixes batches and augmentation.
    """
    generator, augmentation = generator_for(seed, "plain student"), SiameseAugmentation()
    weights = {name: one.clone().requires_grad_() for name, one in start.items()}
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) == 0:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[:batch_size], order[batch_size:]
        draw = augmentation.draw(len(batch), tuple(images.shape[1:]), generator)
        inputs = draw(images[batch], torch.arange(len(batch)))
        loss = F.cross_entropy(functional_call(network, weights, (inputs,)), labels[batch])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {
            name: one - learning_rate * gradient
            for (name, one), gradient in zip(weights.items(), gradients, strict=True)
        }
    missed = torch.stack([(weights[name] - end[name]).square().sum() for name in end]).sum()
    way = torch.stack([(start[name] - end[name]).square().sum() for name in end]).sum()
    distance = missed / way
    distance.backward()  # type: ignore[no-untyped-call]
    return distance.item()
