"""Gradient matching on networks that learn from the synthetic samples: DC, DSA and DCC."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import (
    SECOND_DERIVATIVES,
    register_method,
    takes_optimiser,
    variant_of,
    with_objective,
)
from fedcl_distill.network_sources import FreshRandom, TrainedOnSynthetic
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import DISTANCES, Distance, GradientMatching
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, Positive


@register_method(
    "dc",
    family="gradient matching",
    paper="Zhao et al. 2021, Dataset Condensation with Gradient Matching",
    choose_when="as the classic that every paper compares with; dsa is the better choice",
    needs=(SECOND_DERIVATIVES,),
)
@takes_optimiser("learning_rate", "momentum")
def dc(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "noise",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.1,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    max_grad_norm: Positive | None = None,
    distance: Distance | Plain = "cosine",
    real_batch_per_class: Count = 256,
    views_per_network: Count | None = None,
    passes_between: Natural | None = None,
    network_learning_rate: Positive = 0.01,
    steps_per_network: Count = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Each class's gradients must agree on networks that learn from the set meanwhile (Zhao et al. 2021).

    Defaults are the authors'; their 1,000 networks take 10,000 steps at 10 samples a class.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides and when networks learn: "none" is DC; None takes DSA for images, without flips
            for digits.
        init: first samples: "noise" (the authors'), "random" real ones, which suit short runs better,
            "kmeans", "herding" or "k-center".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, "learned" ones or a teacher's ("teacher:temperature=4").
        optimiser: any callable that takes parameters, in place of SGD with ``learning_rate`` and ``momentum``.
        learning_rate, momentum: of SGD.
        decay_start, max_grad_norm: see :class:`~fedcl_distill.engine.MethodSpec`.
        distance: of gradients: "cosine", "squared" or "absolute"; the latter two need other learning rates.
        real_batch_per_class: real samples a class in each view.
        views_per_network, passes_between, network_learning_rate: see
            :class:`~fedcl_distill.network_sources.TrainedOnSynthetic`.
        steps_per_network: synthetic steps for each state of a network and each real batch. 1 is the paper; 5 computes
            the costly real side a fifth as often.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    augmented = as_augmentation(augmentation)
    return Engine(
        name="dc",
        objective=GradientMatching(distance=DISTANCES.build(distance), real_batch_per_class=real_batch_per_class),
        networks=TrainedOnSynthetic(
            start=FreshRandom(as_architecture(architecture)),
            views_per_network=views_per_network,
            passes_between=passes_between,
            learning_rate=network_learning_rate,
            augmentation=augmented,
        ),
        augmentation=augmented,
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=GradientMatching.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=10_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )


@register_method(
    "dsa",
    family="gradient matching",
    paper="Zhao and Bilen 2021, Dataset Condensation with Differentiable Siamese Augmentation",
    choose_when="whoever trains on the set will augment it, and you have hours of CPU or a GPU",
    needs=(SECOND_DERIVATIVES,),
)
@variant_of(dc, augmentation=None, init="random")
def dsa(engine: Engine) -> Engine:
    """DC with the same random augmentation on both sides (Zhao and Bilen 2021), from real samples."""
    return with_objective(engine, "dsa")


@register_method(
    "dcc",
    family="gradient matching",
    paper="Lee et al. 2022, Dataset Condensation with Contrastive Signals",
    choose_when="classes look alike: it matches what tells them apart",
    needs=(SECOND_DERIVATIVES,),
)
@variant_of(dc, augmentation=None, init="random")
def dcc(engine: Engine) -> Engine:
    """DSA on the mean gradient of all classes, which keeps what tells them apart (Lee et al. 2022; their DSAC).

    With ``augmentation="none"`` it is their DCC. Their first 250 of 1,000 networks match class by class, for a start
    without too much noise; here all match as one. At one sample a class they take ``views_per_network=10`` and
    ``passes_between=5`` instead of 1 and 1.
    """
    return with_objective(engine, "dcc", over="all")
