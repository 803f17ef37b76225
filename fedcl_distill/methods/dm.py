"""DM: distribution matching (Zhao and Bilen 2023)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, NonNegative, Positive


@register_method(
    "dm",
    family="distribution matching",
    paper="Zhao and Bilen 2023, Dataset Condensation with Distribution Matching",
    choose_when="you train ConvNets and have minutes of CPU: cheap steps, scales to many samples",
)
@takes_optimiser("learning_rate", "momentum")
def dm(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = None,
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 1.0,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    averaging_start: Fraction = 1.0,
    real_batch_per_class: Count = 256,
    logits_weight: NonNegative = 0.0,
    steps_per_network: Count = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Class means of embeddings under a new random network each step; defaults are the paper's for ipc < 100.

    Args:
        architecture: of the random networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides; None takes DSA for images, without flips for digits.
        init: first samples: "random" real ones (the paper's), "kmeans" of clusters (k-means), which get there
            sooner (docs/speed.md), "herding", "k-center" or "noise".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
        optimiser: any callable that takes parameters, in place of SGD with ``learning_rate`` and ``momentum``.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        learning_rate, momentum: of SGD. The paper takes rate 10 from 100
            images per class on.
        averaging_start: fraction of the budget from which on iterates are averaged into the result; 1 takes the last.
        real_batch_per_class: real samples a class in each view.
        logits_weight: of class scores beside embeddings; 1 matches what FedDM's clients match.
        steps_per_network: synthetic steps for each random network. 1 is the paper; 5 computes the costly real side a
            fifth as often.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    return Engine(
        name="dm",
        objective=DistributionMatching(real_batch_per_class, logits_weight),
        networks=FreshRandom(as_architecture(architecture)),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=DistributionMatching.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        budget=budget or Budget(steps=20_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
        averaging_start=averaging_start,
    )
