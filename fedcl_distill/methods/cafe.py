"""CAFE: aligning features (Wang et al. 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine import Budget, Engine, Initial
from fedcl_distill.labels import Labels
from fedcl_distill.methods.parts import as_architecture, as_augmentation, as_init, as_labels, as_parameterization
from fedcl_distill.methods.variants import takes_optimiser
from fedcl_distill.network_sources import WatchedTraining
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.objectives import LayerMeans
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import Parameterization


@takes_optimiser("learning_rate", "momentum")
def cafe(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | str | None = "none",
    init: Initial | str = "noise",
    parameterization: Parameterization | str | None = None,
    labels: Labels | str | None = None,
    optimiser: Optimiser | str | None = None,
    learning_rate: float = 0.1,
    momentum: float = 0.5,
    decay_start: float = 0.6,
    max_grad_norm: float | None = None,
    real_batch_per_class: int = 256,
    shallow_weight: float = 0.1,
    deep_weight: float = 1.0,
    discriminative_weight: float = 0.01,
    network_learning_rate: float = 0.01,
    queries_per_class: int = 128,
    max_views: int = 50,
    max_epochs: int = 50,
    steps_per_network: int = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Class means at every stage, and centres that classify real samples; defaults are those of the authors' code.

    Their 2,000 networks take 10 to 20 views each. They halve the rate at 60, 80 and 90 % of the run; here it falls
    along a half cosine from 60 % on.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides and in training; "none" is CAFE, "dsa" (or None: what suits the data) CAFE+DSA.
        init: first samples: "noise" (the authors' code), or "random" real ones, which get further in few steps.
        parameterization: how samples are stored, such as "tiles:factor=2"; None takes pixels.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
        optimiser: any callable that takes parameters, in place of SGD with ``learning_rate`` and ``momentum``.
        learning_rate, momentum: of SGD.
        decay_start, max_grad_norm: see :class:`~fedcl_distill.engine.MethodSpec`.
        real_batch_per_class, shallow_weight, deep_weight, discriminative_weight: see
            :class:`~fedcl_distill.objectives.LayerMeans`.
        network_learning_rate, queries_per_class, max_views, max_epochs: see
            :class:`~fedcl_distill.network_sources.WatchedTraining`; on a CPU, queries cost most.
        steps_per_network: synthetic steps for each view of a network; 1 is the paper.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    augmented = as_augmentation(augmentation)
    return Engine(
        name="cafe",
        objective=LayerMeans(real_batch_per_class, shallow_weight, deep_weight, discriminative_weight),
        networks=WatchedTraining(
            architecture=as_architecture(architecture),
            learning_rate=network_learning_rate,
            augmentation=augmented,
            queries_per_class=queries_per_class,
            max_views=max_views,
            max_epochs=max_epochs,
        ),
        augmentation=augmented,
        parameterization=as_parameterization(parameterization),
        labels=as_labels(labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=30_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
