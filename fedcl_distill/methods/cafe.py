"""CAFE: aligning features (Wang et al. 2022)."""

from __future__ import annotations

from typing import Annotated

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import register_method, takes_optimiser
from fedcl_distill.network_sources import WatchedTraining
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import LayerMeans
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, NonNegative, Positive, Range


@register_method(
    "cafe",
    family="distribution matching",
    paper="Wang et al. 2022, CAFE: Learning to Condense Dataset by Aligning Features",
    choose_when="features of every layer shall agree, not of the last alone; it needs networks that learn from the set",
)
@takes_optimiser("learning_rate", "momentum")
def cafe(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "noise",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.1,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 0.6,
    max_grad_norm: Positive | None = None,
    real_batch_per_class: Count = 256,
    shallow_weight: NonNegative = 0.1,
    deep_weight: NonNegative = 1.0,
    discriminative_weight: NonNegative = 0.01,
    network_learning_rate: Positive = 0.01,
    queries_per_class: Count = 128,
    max_views: Annotated[int, Range(ge=2)] = 50,
    max_epochs: Count = 50,
    steps_per_network: Count = 1,
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
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
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
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=LayerMeans.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=30_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
