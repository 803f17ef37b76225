"""MethodSpec of a method by name, so that settings files and messages can say what Python code says with objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fedcl_distill.augmentation import Augmentation, NoAugmentation, SiameseAugmentation
from fedcl_distill.engine import FromReal, Initial, Noise
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import LABELS, Labels
from fedcl_distill.networks import Architecture
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.selection import (
    EMBEDDINGS,
    ClosestToMean,
    Embedding,
    Herding,
    KCenter,
    KMeansCentres,
    Random,
)

T = TypeVar("T")

_INITIALS: dict[str, Initial] = {
    "noise": Noise(),
    "random": FromReal(Random()),
    "herding": FromReal(Herding()),
    "k-center": FromReal(KCenter()),
    "closest-to-mean": FromReal(ClosestToMean()),
    "kmeans": FromReal(KMeansCentres()),
}
_AUGMENTATIONS: dict[str, Augmentation] = {"none": NoAugmentation(), "dsa": SiameseAugmentation()}


def as_architecture(value: Architecture | str | None) -> Architecture | None:
    """Read ``convnet:width=64`` and the like; None leaves the choice to the data."""
    return Architecture.parse(value) if isinstance(value, str) else value


def as_init(value: Initial | str) -> Initial:
    """Read noise, random, herding, k-center, closest-to-mean or centres.

    Raises:
        SettingsError: the name is unknown.
    """
    return _named("initial samples", value, _INITIALS) if isinstance(value, str) else value


def as_augmentation(value: Augmentation | str | None) -> Augmentation | None:
    """Read none or dsa (with flips); None leaves the choice to the data.

    Raises:
        SettingsError: the name is unknown.
    """
    return _named("augmentation", value, _AUGMENTATIONS) if isinstance(value, str) else value


def as_embedding(value: Embedding | str | None) -> Embedding:
    """Read inputs or trained; None takes inputs."""
    return EMBEDDINGS.build("inputs" if value is None else value)


def as_labels(value: Labels | str | None) -> Labels:
    """Read ``hard``, ``learned:learning_rate=0.01`` or ``teacher:temperature=4``; None takes hard labels."""
    return LABELS.build("hard" if value is None else value)


def as_parameterization(value: Parameterization | Plain | None) -> Parameterization:
    """Read ``pixels``, ``tiles:factor=2`` and the like; None takes pixels."""
    return PARAMETERIZATIONS.build("pixels" if value is None else value)


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise SettingsError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return known[name]
