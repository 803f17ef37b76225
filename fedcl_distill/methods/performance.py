"""Performance matching by unrolled training (DD, label distillation, RTP) or ridge regression (KIP, FRePo, RFAD)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, LearnedLabels, build_labels
from fedcl_distill.methods.registry import REAL_SAMPLES, SECOND_DERIVATIVES, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshEnsemble, FreshRandom, NoNetwork, OnlinePool
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import (
    FixedBatches,
    FixedRate,
    FullyConnectedNTK,
    KernelRidgeRegression,
    LearnedRate,
    LearnedRates,
    NetworkFeatures,
    NoTruncation,
    PlattScaling,
    RandomBatches,
    RandomTruncation,
    SquaredError,
    SquaredErrorWithMargin,
    UnrolledTraining,
)
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, FixedPixels, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, Positive


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


@register_method(
    "kip",
    family="performance matching",
    paper="Nguyen et al. 2021, Dataset Meta-Learning from Kernel Ridge-Regression",
    choose_when="the result is for kernel regression or an MLP; for features rather than images; steps take ms",
)
@takes_optimiser("learning_rate")
def kip(
    *,
    kernel_depth: Natural = 2,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.04,
    decay_start: Fraction = 1.0,
    real_batch_size: Count = 5000,
    regularisation: Positive = 1e-6,
    steps_per_network: Count = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Ridge regression with the tangent kernel of an infinitely wide, fully connected ReLU network.

    No network is built and a step takes milliseconds on a CPU. The result is made for kernel regression
    (:func:`~fedcl_distill.evaluation.kernel_accuracy`); training a network on it does worse. The authors' convolutional
    kernels took hundreds of GPUs and are not here.

    Args:
        kernel_depth: hidden layers of the network.
        augmentation: on both sides of the regression; none by default.
        init: first samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, "learned:learning_rate=0.04" (the paper's label solve, by gradient), or a teacher's.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        learning_rate: of Adam.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        real_batch_size: real samples in each view, of all classes together.
        regularisation: of the ridge regression, relative to the mean of the kernel's diagonal.
        steps_per_network: synthetic steps for each real batch.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    return Engine(
        name="kip",
        objective=KernelRidgeRegression(
            FullyConnectedNTK(kernel_depth), SquaredError(), regularisation, real_batch_size
        ),
        networks=NoNetwork(),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=KernelRidgeRegression.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=2000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )


@register_method(
    "frepo",
    family="performance matching",
    paper="Zhou et al. 2022, Dataset Distillation using Neural Feature Regression",
    choose_when="you have some minutes and few samples a class: no second derivatives, learned labels",
)
@takes_optimiser("learning_rate")
def frepo(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "learned:learning_rate=0.01",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.05,
    decay_start: Fraction = 0.0,
    real_batch_size: Count = 1024,
    regularisation: Positive = 1e-6,
    networks: Count = 10,
    max_network_steps: Natural = 100,
    network_learning_rate: Positive = 3e-4,
    steps_per_network: Count = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Ridge regression on embeddings of networks that learn from the set while it is made.

    Settings are the paper's and its code's, but for these: the authors take LAMB at 3e-4, for images and labels alike
    and for 100,000 steps and more, where Adam at the rates here is for hundreds to thousands of steps; their labels are
    free numbers, here they stay probabilities; their networks have no norm and double their width with every block.

    Args:
        architecture: of the pool's networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides of the regression; the paper has none.
        init: first samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "learned:learning_rate=0.01" and the like, "hard" ones, or a teacher's.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        learning_rate, decay_start: of Adam, falling along a cosine from this fraction of the budget on.
        real_batch_size: real samples in each view, of all classes together.
        regularisation: of the ridge regression, relative to the mean of the kernel's diagonal.
        networks, max_network_steps, network_learning_rate: see
            :class:`~fedcl_distill.network_sources.OnlinePool`.
        steps_per_network: synthetic steps for each network and real batch. 1 is the paper; 4 to 8 compute the costly
            real side that much less often, and get further in minutes on a CPU.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    return Engine(
        name="frepo",
        objective=KernelRidgeRegression(NetworkFeatures(), SquaredErrorWithMargin(), regularisation, real_batch_size),
        networks=OnlinePool(as_architecture(architecture), networks, max_network_steps, network_learning_rate),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=KernelRidgeRegression.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=5000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )


_LAST_WEIGHT_VARIANCE, _LAST_BIAS_VARIANCE = 2.0, 0.01  # of the linear layer on top of the random features


@register_method(
    "rfad",
    family="performance matching",
    paper="Loo et al. 2022, Efficient Dataset Distillation using Random Feature Approximation",
    choose_when="the result is for kernel regression, or networks nobody trained",
    needs=("memory that grows with the real batch",),
)
@takes_optimiser("learning_rate")
def rfad(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "learned:learning_rate=0.005",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.02,
    decay_start: Fraction = 0.0,
    real_batch_size: Count = 5120,
    regularisation: Positive = 5e-3,
    networks: Count = 8,
    scale_learning_rate: Positive = 0.01,
    steps_per_network: Count = 1,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Ridge regression with the Gaussian-process kernel that eight fresh random networks estimate, and Platt scaling.

    Settings are the paper's and its code's, but for these: the authors take AdaBelief at 1e-3 for up to 100,000 steps,
    where Adam at the rate here is for hundreds to thousands; their networks have width 256, no norm, and weights drawn
    from Gaussians (``architecture="convnet:width=256"`` is nearest); they learn a linear map of all samples beside
    them. On a CPU, ``networks=2``, ``real_batch_size=512``, a width of 32 and ``steps_per_network=4`` make a step a
    matter of a second.

    Args:
        architecture: of the random networks; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: on both sides of the regression; the paper has none.
        init: first samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "learned:learning_rate=0.005" and the like, "hard" ones, or a teacher's.
        optimiser: any callable that takes parameters, in place of Adam with ``learning_rate``.
        learning_rate, decay_start: of Adam, falling along a cosine from this fraction of the budget on.
        real_batch_size: real samples in each view, of all classes together.
        regularisation: of the ridge regression, relative to the mean of the kernel's diagonal.
        networks: in each view.
        scale_learning_rate: of the logarithm of the scale that Platt scaling learns.
        steps_per_network: synthetic steps for each view. 1 is the paper.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    kernel = NetworkFeatures(_LAST_WEIGHT_VARIANCE, _LAST_BIAS_VARIANCE)
    return Engine(
        name="rfad",
        objective=KernelRidgeRegression(kernel, PlattScaling(scale_learning_rate), regularisation, real_batch_size),
        networks=FreshEnsemble(as_architecture(architecture), networks),
        augmentation=as_augmentation(augmentation),
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=KernelRidgeRegression.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=4000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
