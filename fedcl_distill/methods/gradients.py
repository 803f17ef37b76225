"""Gradient matching on networks that learn from the set (DC, DSA, DCC) or from the real data (IDC, AccDD)."""

from __future__ import annotations

from dataclasses import replace

from fedcl_distill.augmentation import (
    Augmentation,
    InSequence,
    Operation,
    SiameseAugmentation,
    Transform,
    as_augmentation,
)
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import (
    REAL_TRAINING,
    SECOND_DERIVATIVES,
    register_method,
    takes_optimiser,
    variant_of,
    with_objective,
)
from fedcl_distill.network_sources import FreshRandom, PretrainedPool, TrainedOnReal, TrainedOnSynthetic
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import DISTANCES, Distance, GradientMatching, HiddenWeights
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain, name_of
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, NonNegative, Positive


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


# The authors' rates are for pixels in [0, 1]. In the space of network inputs, that is for values divided by a deviation
# of about 0.25 (CIFAR, squared) or 0.3 (MNIST, absolute), the same steps take their rate over its square.
_IDC_RATES = {"squared": 0.08, "absolute": 1e-3}
_ACCDD_RATES = {**_IDC_RATES, "squared": 0.16}
_OTHERWISE = 0.1
# Theirs grow with the samples a class, and are these at 10 stored ones: 40 once decoded by tiles of factor 2.
_FULL_RATE_AT = 40


@register_method(
    "idc",
    family="gradient matching",
    paper="Kim et al. 2022, Dataset Condensation via Efficient Synthetic-Data Parameterization",
    choose_when="bytes are few: four samples in the room of one, matched on networks that learn from real data",
    needs=(SECOND_DERIVATIVES, REAL_TRAINING),
)
@takes_optimiser("learning_rate", "momentum")
def idc(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = None,
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "tiles",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive | None = None,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    max_grad_norm: Positive | None = None,
    distance: Distance | Plain = "squared",
    real_batch_per_class: Count = 64,
    full_rate_at: Count | None = _FULL_RATE_AT,
    views_per_network: Count = 100,
    samples_between: Natural = 500,
    network_learning_rate: Positive = 0.01,
    cutmix_probability: Fraction = 0.5,
    steps_per_network: Count = 1,
    clamp: bool = True,
    budget: Budget | None = None,
) -> Engine:
    """Four small images in each stored one, and gradients on networks that learn from real data (Kim et al. 2022).

    Defaults are the authors' for CIFAR, but for ``samples_between``, where they take 2,000. Their 2,000 networks take
    200,000 steps; theirs are of one class each, here all classes move at once.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides and when networks learn; None takes the authors': color, crop and cutout one after
            the other, and no cutout when networks learn, whose batches are mixed. "none" where samples are features.
        init: first samples: "random" real ones (the authors'), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored: "tiles" of factor 2 (the authors' IDC), "pixels" (their IDC-I).
        labels: "hard" ones, "learned" ones or a teacher's ("teacher:temperature=4").
        optimiser: any callable that takes parameters, in place of SGD with ``learning_rate`` and ``momentum``.
        learning_rate: of SGD; None takes the authors': 0.08 for squared, 0.001 for absolute distances;
            0.1 for others.
        momentum: of SGD.
        decay_start, max_grad_norm: see :class:`~fedcl_distill.engine.MethodSpec`.
        distance: of gradients: "squared" (the authors' for colour images), "absolute" (theirs for grey ones), "cosine".
        real_batch_per_class: real samples a class in each view.
        full_rate_at: decoded samples a class for which ``learning_rate`` is meant; see
            :class:`~fedcl_distill.objectives.GradientMatching`. Take 10 with "pixels".
        views_per_network, samples_between, network_learning_rate, cutmix_probability: see
            :class:`~fedcl_distill.network_sources.TrainedOnReal`.
        steps_per_network: synthetic steps for each state of a network and each real batch; 1 is the paper.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    measure = DISTANCES.build(distance)
    rate = _IDC_RATES.get(name_of(measure), _OTHERWISE) if learning_rate is None else learning_rate
    return Engine(
        name="idc",
        objective=GradientMatching(
            distance=measure,
            real_batch_per_class=real_batch_per_class,
            layers=HiddenWeights(),
            full_rate_at=full_rate_at,
        ),
        networks=TrainedOnReal(
            start=FreshRandom(as_architecture(architecture)),
            views_per_network=views_per_network,
            samples_between=samples_between,
            learning_rate=network_learning_rate,
            cutmix_probability=cutmix_probability,
            augmentation=_all_of("color", "crop") if augmentation is None else as_augmentation(augmentation),
        ),
        augmentation=_all_of("color", "crop", "cutout") if augmentation is None else as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=GradientMatching.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=rate, momentum=momentum)),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=200_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )


@register_method(
    "accdd",
    family="gradient matching",
    paper="Zhang et al. 2023, Accelerating Dataset Distillation via Model Augmentation",
    choose_when="as idc, with networks trained once and perturbed instead of trained again and again",
    needs=(SECOND_DERIVATIVES, REAL_TRAINING),
)
@takes_optimiser("learning_rate", "momentum")
def accdd(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = None,
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "tiles",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive | None = None,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    max_grad_norm: Positive | None = None,
    distance: Distance | Plain = "squared",
    real_batch_per_class: Count = 64,
    full_rate_at: Count | None = _FULL_RATE_AT,
    views_per_network: Count = 100,
    samples_between: Natural = 500,
    network_learning_rate: Positive = 0.01,
    cutmix_probability: Fraction = 0.5,
    pool_networks: Count = 5,
    pool_epochs: Natural = 2,
    min_perturbation: NonNegative = 0.01,
    max_perturbation: NonNegative = 0.09,
    steps_per_network: Count = 1,
    clamp: bool = True,
    budget: Budget | None = None,
) -> Engine:
    """IDC from a few networks in an early stage of training, perturbed at random (Zhang et al. 2023).

    The default budget is a fifth of IDC's; the authors report up to 20 times less work for like accuracies.

    Args:
        learning_rate: of SGD; None takes the authors': 0.16 for squared, 0.001 for absolute distances.
        pool_networks, pool_epochs, min_perturbation, max_perturbation: see
            :class:`~fedcl_distill.network_sources.PretrainedPool`.

    The others are those of :func:`idc`.
    """
    measure = DISTANCES.build(distance)
    rate = _ACCDD_RATES.get(name_of(measure), _OTHERWISE) if learning_rate is None else learning_rate
    engine = idc(
        architecture=architecture,
        augmentation=augmentation,
        init=init,
        parameterization=parameterization,
        labels=labels,
        learning_rate=rate,
        momentum=momentum,
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        distance=measure,
        real_batch_per_class=real_batch_per_class,
        full_rate_at=full_rate_at,
        views_per_network=views_per_network,
        samples_between=samples_between,
        network_learning_rate=network_learning_rate,
        cutmix_probability=cutmix_probability,
        steps_per_network=steps_per_network,
        clamp=clamp,
        budget=budget or Budget(steps=40_000),
    )
    networks = engine.networks
    assert isinstance(networks, TrainedOnReal)
    pool = PretrainedPool(
        architecture=as_architecture(architecture),
        networks=pool_networks,
        epochs=pool_epochs,
        augmentation=networks.augmentation,
        min_perturbation=min_perturbation,
        max_perturbation=max_perturbation,
    )
    return replace(
        engine,
        name="accdd",
        networks=replace(networks, start=pool),
        optimiser=as_optimiser(optimiser or engine.optimiser),
    )


def _all_of(*operations: Operation) -> InSequence:
    return InSequence(tuple(SiameseAugmentation(operations=(name,)) for name in operations))
