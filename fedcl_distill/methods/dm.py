"""DM: distribution matching (Zhao and Bilen 2023)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine import SGD, Budget, Engine, FromReal, Initial
from fedcl_distill.networks import Architecture, FreshRandom
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.selection import Random


def dm(
    *,
    architecture: Architecture | None = None,
    augmentation: Augmentation | None = None,
    initial: Initial | None = None,
    parameterization: Parameterization | None = None,
    learning_rate: float = 1.0,
    momentum: float = 0.5,
    decay_from: float = 1.0,
    real_per_class: int = 256,
    steps_per_view: int = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Class means of embeddings under a new random network each step; defaults are the paper's for ipc < 100."""
    return Engine(
        name="dm",
        objective=DistributionMatching(real_per_class),
        networks=FreshRandom(architecture),
        augmentation=augmentation,
        parameterization=parameterization or Pixels(),
        initial=initial or FromReal(Random()),
        optimiser=SGD(learning_rate, momentum, decay_from),
        budget=budget or Budget(steps=20_000),
        steps_per_view=steps_per_view,
        clamp=clamp,
    )
