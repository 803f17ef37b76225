"""Codes whose generated images come close to given ones, found by gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.generators.conditional import generate
from fedcl_distill.generators.train import Trained
from fedcl_distill.problem import Problem

_FEWEST_STEPS = 20


def invert(
    trained: Trained,
    images: Tensor,
    labels: Tensor,
    problem: Problem,
    *,
    steps: int = 100,
    learning_rate: float = 0.05,
    feature_weight: float = 0.1,
) -> Tensor:
    """float32 (n, code): minimise the squared distance of pixels plus that of the discriminator's features by Adam.

    Where the problem has no time left, 20 steps must do; the first guesses are good ones.

    Args:
        images: float32 (n, channels, height, width) network inputs.
        labels: int64 (n,): their classes, for the first guess; all of the code is optimised.
        feature_weight: of the features' mean squared distance, against that of the pixels.
    """
    codes = trained.codes(images, labels).requires_grad_()
    adam = torch.optim.Adam([codes], lr=learning_rate)
    with torch.no_grad():
        goals = torch.cat([trained.discriminator.features(part) for (part,) in chunked(images)])
    for step in range(steps):
        if step >= _FEWEST_STEPS and not problem.has_time():
            break
        adam.zero_grad(set_to_none=True)
        for part, goal, rows in chunked(images, goals, torch.arange(len(images))):
            generated = generate(trained.weights, codes[rows])
            features = trained.discriminator.features(generated)
            # Means over all but the samples: a code's descent is its own affair.
            distance = (generated - part).square().flatten(1).mean(dim=1).sum()
            distance = distance + feature_weight * (features - goal).square().mean(dim=1).sum()
            distance.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return codes.detach()
