"""KIP: kernel inducing points (Nguyen et al. 2021)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine import Budget, Engine, Initial
from fedcl_distill.labels import Labels
from fedcl_distill.methods.parts import as_augmentation, as_init, as_labels, as_parameterization
from fedcl_distill.methods.variants import takes_optimiser
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.objectives import FullyConnectedNTK, KernelRidgeRegression, SquaredError
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import Parameterization


@takes_optimiser("learning_rate")
def kip(
    *,
    kernel_depth: int = 2,
    augmentation: Augmentation | str | None = "none",
    init: Initial | str = "random",
    parameterization: Parameterization | str | None = None,
    labels: Labels | str | None = None,
    optimiser: Optimiser | str | None = None,
    learning_rate: float = 0.04,
    decay_start: float = 1.0,
    real_batch_size: int = 5000,
    regularisation: float = 1e-6,
    steps_per_network: int = 1,
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
        parameterization: how samples are stored, such as "tiles:factor=2"; None takes pixels.
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
        parameterization=as_parameterization(parameterization),
        labels=as_labels(labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=2000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
