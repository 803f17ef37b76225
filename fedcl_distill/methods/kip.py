"""KIP: kernel inducing points (Nguyen et al. 2021)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import register_method, takes_optimiser
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.objectives import FullyConnectedNTK, KernelRidgeRegression, SquaredError
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Natural, Positive


@register_method(
    "kip",
    family="performance matching",
    paper="Nguyen et al. 2021, Dataset Meta-Learning from Kernel Ridge-Regression",
    choose_when="the result shall serve kernel regression or an MLP; for features rather than images; steps take ms",
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
