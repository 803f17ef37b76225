"""FRePo: neural feature regression with pooling (Zhou et al. 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import register_method, takes_optimiser
from fedcl_distill.network_sources import OnlinePool
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import KernelRidgeRegression, NetworkFeatures, SquaredErrorWithMargin
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Natural, Positive


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
