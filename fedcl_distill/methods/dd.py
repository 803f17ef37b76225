"""DD: dataset distillation by unrolled training (Wang et al. 2018), of samples or of labels (Bohdal et al. 2020)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, LearnedLabels, build_labels
from fedcl_distill.methods.registry import REAL_SAMPLES, SECOND_DERIVATIVES, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import (
    FixedBatches,
    LearnedRate,
    LearnedRates,
    NoTruncation,
    RandomTruncation,
    UnrolledTraining,
)
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, FixedPixels, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Positive


@register_method(
    "dd",
    family="performance matching",
    paper="Wang et al. 2018, Dataset Distillation",
    choose_when="whoever trains on the set will follow the same schedule of few steps, with the learned rates",
    needs=(SECOND_DERIVATIVES, "memory that grows with the inner steps"),
)
@takes_optimiser("learning_rate")
def dd(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.01,
    decay_start: Fraction = 1.0,
    max_grad_norm: Positive | None = None,
    inner_steps: Count = 10,
    inner_epochs: Count = 3,
    inner_learning_rate: Positive = 0.02,
    inner_momentum: Momentum = 0.0,
    truncation_window: Count | None = None,
    real_batch_size: Count = 1024,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """A fresh network trained on the set must do well on real data; the gradient passes the whole training.

    Settings are the paper's, except that first samples are real ones, which serve a small budget better than its noise.
    Each class's samples are dealt out to ``inner_steps`` batches, one step each; the rates of all steps are learned and
    found in the provenance. A set works best with those rates.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: of the real batch; the paper has none.
        init: first samples: "random" real ones, "kmeans", "herding", "k-center" or "noise" (the paper's).
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, "learned:learning_rate=0.01" and the like, or a teacher's.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        decay_start, max_grad_norm: see :class:`~fedcl_distill.engine.MethodSpec`.
        learning_rate: of Adam. In minutes on a CPU, 0.05
            gets further than the paper's 0.01.
        inner_steps, inner_epochs, inner_momentum: see :class:`~fedcl_distill.objectives.UnrolledTraining`.
        inner_learning_rate: of every step, before it is learned.
        truncation_window: how many steps the gradient passes, at a random place of the training
            (:class:`~fedcl_distill.objectives.RandomTruncation`); None takes all.
        real_batch_size: real samples in each view, of all classes together.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    return Engine(
        name="dd",
        objective=UnrolledTraining(
            steps=inner_steps,
            epochs=inner_epochs,
            batches=FixedBatches(inner_steps),
            rates=LearnedRates(inner_learning_rate, learning_rate),
            momentum=inner_momentum,
            truncation=NoTruncation() if truncation_window is None else RandomTruncation(truncation_window),
            real_batch_size=real_batch_size,
        ),
        networks=FreshRandom(as_architecture(architecture)),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=UnrolledTraining.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate, betas=(0.5, 0.999))),
        decay_start=decay_start,
        max_grad_norm=max_grad_norm,
        budget=budget or Budget(steps=2000),
        clamp=clamp,
    )


@register_method(
    "label-distillation",
    family="performance matching",
    paper="Bohdal et al. 2020, Flexible Dataset Distillation: Learn Labels Instead of Images",
    choose_when="samples are given (public ones, say) and only their labels may carry knowledge",
    needs=(SECOND_DERIVATIVES, REAL_SAMPLES, "memory that grows with the inner steps"),
)
def label_distillation(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    optimiser: Optimiser | Plain | None = None,
    label_learning_rate: Positive = 0.01,
    decay_start: Fraction = 1.0,
    inner_steps: Count = 20,
    inner_learning_rate: Positive = 0.02,
    inner_momentum: Momentum = 0.9,
    real_batch_size: Count = 1024,
    budget: Budget | None = None,
) -> Engine:
    """Samples stay as they are, and their labels are learned, such that training on them does well on real data.

    The idea and its second-order objective are those of Bohdal et al. (2020); they train one network on and on, with a
    step on the labels after each of its steps and a restart when validation says so, where fresh networks are trained
    here as in :func:`dd`. By default the samples are real: what is shared then is not synthetic.

    Args:
        architecture: of the networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: of the real batch; the paper has none.
        init: the samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        optimiser: of the labels, in place of Adam: any callable that takes parameters.
        label_learning_rate: of Adam.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        inner_steps: on all samples together.
        inner_learning_rate: before it is learned; one for all steps.
        inner_momentum: of the inner SGD.
        real_batch_size: real samples in each view, of all classes together.
        budget: where a call gives none.
    """
    return Engine(
        name="label-distillation",
        objective=UnrolledTraining(
            steps=inner_steps,
            epochs=1,
            rates=LearnedRate(inner_learning_rate, label_learning_rate),
            momentum=inner_momentum,
            real_batch_size=real_batch_size,
        ),
        networks=FreshRandom(as_architecture(architecture)),
        augmentation=as_augmentation(augmentation),
        parameterization=FixedPixels(),
        labels=LearnedLabels(label_learning_rate),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=label_learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=1000),
    )
