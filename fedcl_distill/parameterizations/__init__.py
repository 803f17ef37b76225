"""Parameterizations: how synthetic data are stored and decoded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations.addressing import Addressing
from fedcl_distill.parameterizations.base import Arrays, Parameterization, Setting, Shape
from fedcl_distill.parameterizations.generator import GeneratorLatents
from fedcl_distill.parameterizations.grids import FixedPixels, LowRank, Pixels, Tiles
from fedcl_distill.specs import read_spec

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    Pixels.name: Pixels,
    FixedPixels.name: FixedPixels,
    Tiles.name: Tiles,
    Addressing.name: Addressing,
    LowRank.name: LowRank,
    GeneratorLatents.name: GeneratorLatents,
}


def build_parameterization(name: str, settings: Mapping[str, Setting]) -> Parameterization:
    """Rebuild the parameterization that a file or message names.

    Raises:
        PayloadError: the name or a setting is unknown.
    """
    if name not in PARAMETERIZATIONS:
        raise PayloadError(f"unknown parameterization {name!r}; known: {', '.join(sorted(PARAMETERIZATIONS))}")
    try:
        return PARAMETERIZATIONS[name](**settings)
    except (TypeError, ValueError) as error:
        raise PayloadError(f"parameterization {name!r} does not take these settings: {error}") from error


def stored_settings(parameterization: Parameterization) -> dict[str, Setting]:
    """Settings that are not the defaults of the class: defaults are part of the file format, and cost no bytes."""
    defaults = inspect.signature(type(parameterization)).parameters
    given = parameterization.settings()
    return {name: value for name, value in given.items() if name not in defaults or defaults[name].default != value}


def as_parameterization(value: Parameterization | str | None) -> Parameterization:
    """Read ``pixels``, ``tiles``, ``addressing:bases=16`` and the like; None takes pixels.

    Raises:
        SettingsError: the name or a setting is unknown.
    """
    if value is None:
        return Pixels()
    return read_spec("parameterization", value, PARAMETERIZATIONS) if isinstance(value, str) else value


__all__ = [
    "PARAMETERIZATIONS",
    "Addressing",
    "Arrays",
    "FixedPixels",
    "GeneratorLatents",
    "LowRank",
    "Parameterization",
    "Pixels",
    "Setting",
    "Shape",
    "Tiles",
    "as_parameterization",
    "build_parameterization",
    "stored_settings",
]
