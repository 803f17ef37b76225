"""RTP: remember the past, addressable memories by unrolled training with momentum (Deng and Russakovsky 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import SECOND_DERIVATIVES, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import FixedRate, NoTruncation, RandomBatches, RandomTruncation, UnrolledTraining
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Positive


@register_method(
    "rtp",
    family="performance matching",
    paper="Deng and Russakovsky 2022, Remember the Past: Distilling Datasets into Addressable Memories",
    choose_when="bytes are very few and time is plenty: classes share what they are made of",
    needs=(SECOND_DERIVATIVES, "memory that grows with the inner steps"),
)
@takes_optimiser("learning_rate")
def rtp(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "addressing",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.01,
    decay_start: Fraction = 1.0,
    max_grad_norm: Positive | None = 2.0,
    inner_steps: Count = 20,
    inner_batch_size: Count | None = 64,
    inner_learning_rate: Positive = 0.01,
    inner_momentum: Momentum = 0.9,
    truncation_window: Count | None = None,
    real_batch_size: Count = 640,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Shared bases and addresses, learned so that training with momentum on what they decode to does well.

    Of the authors' settings (150 inner steps, 32 samples a class in each, SGD at 0.1 with momentum 0.5 for bases and
    addresses, 500,000 steps) the inner ones are ``inner_steps=150`` and ``inner_batch_size=320`` for ten classes; the
    defaults are for a CPU, where a step still takes seconds at width 32 (an inner step costs some twelve forward passes
    of its batch). Momentum lets few steps reach far. Their penalty on the
    addresses' norm (1e-4) is left out.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: of the real batch; the paper has none.
        init: what bases and addresses first approximate: "random" real samples, "kmeans", "herding",
            "k-center" or "noise".
        parameterization: how samples are stored; "addressing:bases=16" and the like, or "pixels" for the paper's
            unrolled training alone.
        labels: "hard" ones, "learned:learning_rate=0.01" and the like, or a teacher's.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        learning_rate: of Adam.
        decay_start, max_grad_norm: see :class:`~fedcl_distill.engine.MethodSpec`.
        inner_steps, inner_momentum: see :class:`~fedcl_distill.objectives.UnrolledTraining`.
        inner_batch_size: decoded samples an inner step; None takes all.
        inner_learning_rate: of every inner step; not learned.
        truncation_window: how many steps the gradient passes, at a random place of the training
            (:class:`~fedcl_distill.objectives.RandomTruncation`); None takes all (the paper's).
        real_batch_size: real samples in each view, of all classes together.
        clamp: keep pixels inside the data's value range; for parameterizations that store pixels.
        budget: where a call gives none.
    """
    return Engine(
        name="rtp",
        objective=UnrolledTraining(
            steps=inner_steps,
            epochs=1,
            batches=RandomBatches(inner_batch_size),
            rates=FixedRate(inner_learning_rate),
            momentum=inner_momentum,
            truncation=NoTruncation() if truncation_window is None else RandomTruncation(truncation_window),
            real_batch_size=real_batch_size,
        ),
        networks=FreshRandom(as_architecture(architecture)),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=UnrolledTraining.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=2000),
        clamp=clamp,
    )
