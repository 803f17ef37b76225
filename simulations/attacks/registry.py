"""Attacks by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedcl_distill.errors import SettingsError
from simulations.attacks.backdoor import Backdoor
from simulations.attacks.base import Attack
from simulations.attacks.garbage import Garbage
from simulations.attacks.labels import ClassFlood, LabelFlip
from simulations.attacks.models import SignFlip
from simulations.attacks.near import NearTarget

ATTACKS: dict[str, type[Attack]] = {
    "label-flip": LabelFlip,
    "near-target": NearTarget,
    "backdoor": Backdoor,
    "garbage": Garbage,
    "flood": ClassFlood,
    "sign-flip": SignFlip,
}


def list_attacks() -> list[str]:
    """Names that :func:`build_attack` takes."""
    return list(ATTACKS)


def build_attack(name: str, settings: Mapping[str, Any]) -> Attack:
    """The attack of this name.

    Raises:
        SettingsError: it is unknown, has no such setting, or a value is of another type or out of range.
    """
    if name not in ATTACKS:
        raise SettingsError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    kinds = {field.name: type(field.default) for field in dataclasses.fields(ATTACKS[name])}
    chosen: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in kinds:
            raise SettingsError(f"attack {name!r} has no setting {key}; it has: {', '.join(kinds)}")
        chosen[key] = float(value) if kinds[key] is float and type(value) is int else value
        if type(chosen[key]) is not kinds[key]:
            raise SettingsError(f"attack {name!r}: {key} must be of type {kinds[key].__name__}, got {value!r}")
    return ATTACKS[name](**chosen)
