"""Core sets as methods: real samples at the same call, so that every comparison has them beside distilled sets."""

from __future__ import annotations

from typing import Annotated

from fedcl_distill.engine import CompressedCoreSet, CoreSet
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import REAL_SAMPLES, REAL_TRAINING, register_method
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.registry import Plain
from fedcl_distill.selection import (
    EMBEDDINGS,
    SELECTIONS,
    ClosestToMean,
    Criterion,
    Embedding,
    Forgetting,
    Herding,
    KCenter,
    Random,
)
from fedcl_distill.settings import Count, Positive, Range


@register_method(
    "random",
    family="core set",
    choose_when="as the baseline of every comparison",
    needs=(REAL_SAMPLES,),
)
def random(*, labels: Labels | Plain = "hard") -> CoreSet:
    """Uniformly random real samples of each class.

    Args:
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
    """
    return CoreSet(Random(), build_labels(labels, learned=False))


@register_method(
    "herding",
    family="core set",
    paper="Welling 2009; Rebuffi et al. 2017 (iCaRL)",
    choose_when="you may keep real samples and want one or a few typical ones",
    needs=(REAL_SAMPLES,),
)
def herding(*, embedding: Embedding | Plain = "inputs", labels: Labels | Plain = "hard") -> CoreSet:
    """Real samples whose running mean stays closest to the class mean (Welling 2009; Rebuffi et al. 2017).

    Args:
        embedding: where means are taken: "inputs", or as in the papers "trained": the embedding of a
            network trained on the data.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
    """
    return CoreSet(Herding(EMBEDDINGS.build(embedding)), build_labels(labels, learned=False))


@register_method(
    "k-center",
    family="core set",
    paper="Sener and Savarese 2018",
    choose_when="you may keep real samples and want to cover rare ones",
    needs=(REAL_SAMPLES,),
)
def k_center(*, embedding: Embedding | Plain = "inputs", labels: Labels | Plain = "hard") -> CoreSet:
    """Real samples that cover the class: greedy k-center (Sener and Savarese 2018).

    Args:
        embedding: where distances are taken: "inputs" or "trained", see :func:`herding`.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
    """
    return CoreSet(KCenter(EMBEDDINGS.build(embedding)), build_labels(labels, learned=False))


@register_method(
    "closest-to-mean",
    family="core set",
    paper="the simplest of the baselines in Castro et al. 2018 and others",
    choose_when="you may keep real samples and want the most typical ones only",
    needs=(REAL_SAMPLES,),
)
def closest_to_mean(*, embedding: Embedding | Plain = "inputs", labels: Labels | Plain = "hard") -> CoreSet:
    """Real samples nearest to the class mean.

    Args:
        embedding: where means are taken: "inputs" or "trained", see :func:`herding`.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
    """
    return CoreSet(ClosestToMean(EMBEDDINGS.build(embedding)), build_labels(labels, learned=False))


@register_method(
    "forgetting",
    family="core set",
    paper="Toneva et al. 2019, An Empirical Study of Example Forgetting",
    choose_when="you may keep many real samples and want the hard ones; with few it is worse than random",
    needs=(REAL_SAMPLES, REAL_TRAINING),
)
def forgetting(
    *,
    epochs: Annotated[int, Range(ge=2)] = 10,
    candidates_per_class: Count | None = 500,
    architecture: ArchitectureLike | None = None,
    learning_rate: Positive = 0.01,
    batch_size: Count = 64,
    labels: Labels | Plain = "hard",
) -> CoreSet:
    """Real samples that a network in training forgets most often (Toneva et al. 2019).

    Args:
        epochs, candidates_per_class, learning_rate, batch_size: see :class:`~fedcl_distill.selection.Forgetting`.
        architecture: of that network; None takes a ConvNet of width 32 (an MLP for features).
        labels: "hard" ones, or a teacher's ("teacher:temperature=4").
    """
    criterion = Forgetting(epochs, candidates_per_class, as_architecture(architecture), learning_rate, batch_size)
    return CoreSet(criterion, build_labels(labels, learned=False))


@register_method(
    "compressed",
    family="core set",
    paper="cosine transform and entropy coder, as image codecs have had since JPEG (1992)",
    choose_when="as the baseline at equal bytes: real samples, but compressed",
    needs=(REAL_SAMPLES,),
)
def compressed(
    *,
    selection: Criterion | Plain = "random",
    bytes_per_image: Positive | None = None,
    block: Count | None = None,
) -> CompressedCoreSet:
    """Real images behind an image codec, as many as fit into the bytes; see :class:`CompressedCoreSet`.

    Args:
        selection: which images: "random", "herding", "k-center", …
        bytes_per_image: of the payload; None follows a rule that was measured on MNIST.
        block: side of the blocks that are transformed; None transforms whole images.
    """
    return CompressedCoreSet(SELECTIONS.build(selection), bytes_per_image, block)
