"""NCFM: matching of characteristic functions (Wang et al. 2025)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, NoAugmentation, SiameseAugmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import REAL_TRAINING, register_method, takes_optimiser
from fedcl_distill.network_sources import Interpolated
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import CharacteristicFunction, WithCrossEntropy
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, NonNegative, Positive
from fedcl_distill.training import TrainConfig

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
