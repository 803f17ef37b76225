"""Core sets as methods: real samples at the same call, so that every comparison has them beside distilled sets."""

from __future__ import annotations

from fedcl_distill.engine import CoreSet
from fedcl_distill.labels import Labels
from fedcl_distill.methods.parts import as_architecture, as_embedding, as_labels
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.selection import ClosestToMean, Embedding, Forgetting, Herding, KCenter, Random


def random(*, labels: Labels | str | None = None) -> CoreSet:
    """Uniformly random real samples of each class.

    Args:
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
    """
    return CoreSet(Random(), as_labels(labels))


def herding(*, embedding: Embedding | str | None = None, labels: Labels | str | None = None) -> CoreSet:
    """Real samples whose running mean stays closest to the class mean (Welling 2009; Rebuffi et al. 2017).

    Args:
        embedding: where means are taken: "inputs" (also for None), or as in the papers "trained": the embedding of a
            network trained on the data.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
    """
    return CoreSet(Herding(as_embedding(embedding)), as_labels(labels))


def k_center(*, embedding: Embedding | str | None = None, labels: Labels | str | None = None) -> CoreSet:
    """Real samples that cover the class: greedy k-center (Sener and Savarese 2018).

    Args:
        embedding: where distances are taken: "inputs" or "trained", see :func:`herding`.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
    """
    return CoreSet(KCenter(as_embedding(embedding)), as_labels(labels))


def closest_to_mean(*, embedding: Embedding | str | None = None, labels: Labels | str | None = None) -> CoreSet:
    """Real samples nearest to the class mean.

    Args:
        embedding: where means are taken: "inputs" or "trained", see :func:`herding`.
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
    """
    return CoreSet(ClosestToMean(as_embedding(embedding)), as_labels(labels))


def forgetting(
    *,
    epochs: int = 10,
    candidates_per_class: int | None = 500,
    architecture: ArchitectureLike | None = None,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    labels: Labels | str | None = None,
) -> CoreSet:
    """Real samples that a network in training forgets most often (Toneva et al. 2019).

    Args:
        epochs, candidates_per_class, learning_rate, batch_size: see :class:`~fedcl_distill.selection.Forgetting`.
        architecture: of that network; None takes a ConvNet of width 32 (an MLP for features).
        labels: "hard" ones, or a teacher's ("teacher:temperature=4"); None takes hard ones.
    """
    criterion = Forgetting(epochs, candidates_per_class, as_architecture(architecture), learning_rate, batch_size)
    return CoreSet(criterion, as_labels(labels))
