"""Core sets as methods: real samples at the same call, so that every comparison has them beside distilled sets."""

from __future__ import annotations

from fedcl_distill.engine import CoreSet
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.selection import (
    ClosestToMean,
    Embedding,
    Forgetting,
    Herding,
    Inputs,
    KCenter,
    Random,
    TrainedEmbedding,
)

_EMBEDDINGS: dict[str, Embedding] = {"inputs": Inputs(), "trained": TrainedEmbedding()}


def random() -> CoreSet:
    """Uniformly random real samples of each class."""
    return CoreSet(Random())


def herding(*, embedding: Embedding | str | None = None) -> CoreSet:
    """Real samples whose running mean stays closest to the class mean (Welling 2009; Rebuffi et al. 2017).

    Args:
        embedding: where means are taken: "inputs" (also for None), or as in the papers "trained": the embedding of a
            network trained on the data.

    Raises:
        SettingsError: the embedding's name is unknown.
    """
    return CoreSet(Herding(as_embedding(embedding)))


def k_center(*, embedding: Embedding | str | None = None) -> CoreSet:
    """Real samples that cover the class: greedy k-center (Sener and Savarese 2018).

    Args:
        embedding: where distances are taken: see :func:`herding`.

    Raises:
        SettingsError: the embedding's name is unknown.
    """
    return CoreSet(KCenter(as_embedding(embedding)))


def closest_to_mean(*, embedding: Embedding | str | None = None) -> CoreSet:
    """Real samples nearest to the class mean.

    Args:
        embedding: where means are taken: see :func:`herding`.

    Raises:
        SettingsError: the embedding's name is unknown.
    """
    return CoreSet(ClosestToMean(as_embedding(embedding)))


def forgetting(
    *,
    epochs: int = 10,
    candidates_per_class: int | None = 500,
    architecture: Architecture | str | None = None,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> CoreSet:
    """Real samples that a network in training forgets most often (Toneva et al. 2019).

    Args:
        epochs, candidates_per_class, learning_rate, batch_size: see :class:`~fedcl_distill.selection.Forgetting`.
        architecture: of that network; None takes a ConvNet of width 32 (an MLP for features).
    """
    read = Architecture.parse(architecture) if isinstance(architecture, str) else architecture
    return CoreSet(Forgetting(epochs, candidates_per_class, read, learning_rate, batch_size))


def as_embedding(value: Embedding | str | None) -> Embedding:
    """Read inputs or trained; None takes inputs.

    Raises:
        SettingsError: the name is unknown.
    """
    if value is None:
        return Inputs()
    if not isinstance(value, str):
        return value
    if value not in _EMBEDDINGS:
        raise SettingsError(f"unknown embedding {value!r}; known: {', '.join(_EMBEDDINGS)}")
    return _EMBEDDINGS[value]
