"""FRePo: neural feature regression with pooling (Zhou et al. 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine import Budget, Engine, Initial
from fedcl_distill.labels import Labels
from fedcl_distill.methods.parts import as_architecture, as_augmentation, as_init, as_labels, as_parameterization
from fedcl_distill.methods.variants import takes_optimiser
from fedcl_distill.network_sources import OnlinePool
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.objectives import KernelRidgeRegression, NetworkFeatures, SquaredErrorWithMargin
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import Parameterization


@takes_optimiser("learning_rate")
def frepo(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | str | None = "none",
    init: Initial | str = "random",
    parameterization: Parameterization | str | None = None,
    labels: Labels | str | None = "learned:learning_rate=0.01",
    optimiser: Optimiser | str | None = None,
    learning_rate: float = 0.05,
    decay_start: float = 0.0,
    real_batch_size: int = 1024,
    regularisation: float = 1e-6,
    networks: int = 10,
    max_network_steps: int = 100,
    network_learning_rate: float = 3e-4,
    steps_per_network: int = 1,
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
        parameterization: how samples are stored, such as "tiles:factor=2"; None takes pixels.
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
        parameterization=as_parameterization(parameterization),
        labels=as_labels(labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or Adam(learning_rate=learning_rate)),
        decay_start=decay_start,
        budget=budget or Budget(steps=5000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
