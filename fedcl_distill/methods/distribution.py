"""Distribution matching: DM, CAFE, NCFM, and IT-GAN on the codes of a generator."""

from __future__ import annotations

from typing import Annotated

from fedcl_distill.augmentation import Augmentation, NoAugmentation, SiameseAugmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import REAL_TRAINING, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom, Interpolated, WatchedTraining
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import (
    CharacteristicFunction,
    DistributionMatching,
    LayerMeans,
    WithCrossEntropy,
    WithPairs,
)
from fedcl_distill.optimisers import SGD, Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, GeneratorLatents, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, NonNegative, Positive, Range
from fedcl_distill.training import TrainConfig


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


@register_method(
    "cafe",
    family="distribution matching",
    paper="Wang et al. 2022, CAFE: Learning to Condense Dataset by Aligning Features",
    choose_when="features of every layer must agree, not of the last alone; it needs networks that learn from the set",
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


_AUGMENTATION = SiameseAugmentation(operations=("color", "crop", "cutout"))


@register_method(
    "ncfm",
    family="distribution matching",
    paper="Wang et al. 2025, Dataset Distillation with Neural Characteristic Function",
    choose_when="means say too little of a class: it compares whole distributions, and needs a sum over the data",
    needs=(REAL_TRAINING,),
)
@takes_optimiser("learning_rate", "weight_decay")
def ncfm(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = _AUGMENTATION,
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "tiles:factor=2",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.01,
    weight_decay: NonNegative = 5e-4,
    decay_start: Fraction = 0.5,
    frequencies: Count = 4096,
    amplitude_weight: NonNegative = 0.5,
    phase_weight: NonNegative = 0.5,
    real_batch_per_class: Count = 1024,
    cross_entropy_weight: NonNegative = 1.0,
    pretrained_networks: Count = 20,
    pretraining_epochs: Count = 60,
    pretraining_learning_rate: Positive = 0.01,
    steps_per_network: Count = 1,
    clamp: bool = True,
    budget: Budget | None = None,
) -> Engine:
    """Characteristic functions of embeddings between untrained and trained; defaults are those of the authors' code.

    They take a step of AdamW at 0.001 (in unit values) for each class and each of the two losses; here one step serves
    all of them, and its rate is in normalised values, where 0.01 moves pixels about as far. They halve the rate when
    the loss stops falling; here it falls along a half cosine in the second half of the budget.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides: colour, crop and cutout in the authors' code. Feature vectors need "none".
        init: first samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored; four images in each stored one. Feature vectors need "pixels".
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"), as the paper optionally does.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate`` and ``weight_decay``.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        learning_rate, weight_decay: of Adam. For a few hundred steps take
            a rate of 0.05 (Fashion-MNIST, 1 image per class, width 32, 50 s on a CPU: 74.4 % instead of 72.0 %).
        frequencies, amplitude_weight, phase_weight, real_batch_per_class: see
            :class:`~fedcl_distill.objectives.CharacteristicFunction`.
        cross_entropy_weight: of the cross entropy under the trained network; 0 leaves it out.
        pretrained_networks, pretraining_epochs, pretraining_learning_rate: of the networks that train on the real data
            first, with ``augmentation`` (the authors add CutMix); a budget in seconds trains fewer of them, or shorter.
        steps_per_network: synthetic steps for each network; 1 is the paper.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    matching = CharacteristicFunction(
        frequencies=frequencies,
        amplitude_weight=amplitude_weight,
        phase_weight=phase_weight,
        real_batch_per_class=real_batch_per_class,
    )
    objective = WithCrossEntropy(matching, cross_entropy_weight) if cross_entropy_weight else matching
    augmented = as_augmentation(augmentation)
    train_config = TrainConfig(
        epochs=pretraining_epochs,
        learning_rate=pretraining_learning_rate,
        batch_size=128,
        schedule="cosine",
        augmentation=augmented or NoAugmentation(),
    )
    return Engine(
        name="ncfm",
        objective=objective,
        networks=Interpolated(as_architecture(architecture), pretrained_networks, train_config),
        augmentation=augmented,
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=objective.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate, weight_decay=weight_decay)),
        decay_start=decay_start,
        budget=budget or Budget(steps=20_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )


@register_method(
    "it-gan",
    family="generative",
    paper="Zhao and Bilen 2022, Synthesizing Informative Training Samples with GAN",
    choose_when="samples are to look like data, or many share one generator whose weights are paid once",
    needs=(REAL_TRAINING,),
)
@takes_optimiser("learning_rate")
def it_gan(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = None,
    init: Initial | Plain = "random",
    labels: Labels | Plain = "hard",
    generator: GeneratorLatents | None = None,
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.1,
    decay_start: Fraction = 1.0,
    real_batch_per_class: Count = 256,
    pair_weight: NonNegative = 0.1,
    steps_per_network: Count = 1,
    budget: Budget | None = None,
) -> Engine:
    """Codes of a generator, learned by distribution matching as pixels are by DM.

    The paper takes a BigGAN trained by others; here the generator is small and trained on the same real data, before
    the first step. Each generated sample is held to the real one that it was inverted from.

    Args:
        architecture: of the random networks; None takes ConvNet-3 of width 128.
        augmentation: on both sides; None takes DSA, without flips for digits.
        init: real samples to invert: "random" ones (the paper's), "kmeans", "herding" or "k-center"; or "noise".
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
        generator: how it is built and trained; None takes the defaults. A budget in seconds gives it a third.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        learning_rate, decay_start: of Adam on the codes. Ours, not the
            paper's: 0.05 and 0.2 did alike in 100 steps on Fashion-MNIST.
        real_batch_per_class: real samples a class in each view.
        pair_weight: see :class:`~fedcl_distill.objectives.WithPairs`; 0 leaves pairs out.
        steps_per_network: synthetic steps for each random network.
        budget: where a call gives none.
    """
    objective = DistributionMatching(real_batch_per_class)
    return Engine(
        name="it-gan",
        objective=objective if pair_weight == 0 else WithPairs(objective, pair_weight),
        networks=FreshRandom(as_architecture(architecture)),
        augmentation=as_augmentation(augmentation),
        parameterization=generator or GeneratorLatents(),
        labels=build_labels(labels, learned=DistributionMatching.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=5_000),
        steps_per_network=steps_per_network,
    )
