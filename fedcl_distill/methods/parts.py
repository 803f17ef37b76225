"""MethodSpec of a method by name, so that settings files and messages can say what Python code says with objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from fedcl_distill.augmentation import as_augmentation as as_augmentation
from fedcl_distill.engine import as_init as as_init
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels, LearnedLabels, TeacherLabels
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.networks import as_architecture as as_architecture
from fedcl_distill.parameterizations import as_parameterization as as_parameterization
from fedcl_distill.selection import (
    Embedding,
    Inputs,
    TrainedEmbedding,
)
from fedcl_distill.specs import read_spec

T = TypeVar("T")

_EMBEDDINGS: dict[str, Embedding] = {"inputs": Inputs(), "trained": TrainedEmbedding()}


def _teacher(
    temperature: float = 1.0, architecture: ArchitectureLike | None = None, teachers: int = 1
) -> TeacherLabels:
    return TeacherLabels(temperature, as_architecture(architecture), teachers=teachers)


_LABELS: dict[str, Callable[..., Labels]] = {"hard": HardLabels, "learned": LearnedLabels, "teacher": _teacher}


def as_embedding(value: Embedding | str | None) -> Embedding:
    """Read inputs or trained; None takes inputs.

    Raises:
        SettingsError: the name is unknown.
    """
    if value is None:
        return Inputs()
    return _named("embedding", value, _EMBEDDINGS) if isinstance(value, str) else value


def as_labels(value: Labels | str | None) -> Labels:
    """Read ``hard``, ``learned:learning_rate=0.01`` or ``teacher:temperature=4,architecture=convnet:width=32``.

    None takes hard labels.

    Raises:
        SettingsError: the name or a setting is unknown.
    """
    if value is None:
        return HardLabels()
    return read_spec("labels", value, _LABELS) if isinstance(value, str) else value


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise SettingsError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return known[name]
