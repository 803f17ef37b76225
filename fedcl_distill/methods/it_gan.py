"""IT-GAN: informative training samples from a frozen generator (Zhao and Bilen 2022)."""

from __future__ import annotations

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import REAL_TRAINING, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import DistributionMatching, WithPairs
from fedcl_distill.optimisers import Adam, Optimiser, as_optimiser
from fedcl_distill.parameterizations import GeneratorLatents
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, NonNegative, Positive


@register_method(
    "it-gan",
    family="generative",
    paper="Zhao and Bilen 2022, Synthesizing Informative Training Samples with GAN",
    choose_when="samples shall look like data, or many share one generator whose weights are paid once",
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
