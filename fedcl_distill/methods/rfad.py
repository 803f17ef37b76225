"""RFAD: dataset distillation with random features (Loo et al. 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import register_method, takes_optimiser
from fedcl_distill.network_sources import FreshEnsemble
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import KernelRidgeRegression, NetworkFeatures, PlattScaling
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Positive

_LAST_WEIGHT_VARIANCE, _LAST_BIAS_VARIANCE = 2.0, 0.01  # of the linear layer on top of the random features


@register_method(
    "rfad",
    family="performance matching",
    paper="Loo et al. 2022, Efficient Dataset Distillation using Random Feature Approximation",
    choose_when="the result shall serve kernel regression, or networks nobody trained",
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
