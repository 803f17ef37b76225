"""Parameterizations: how synthetic data are stored and decoded."""

from __future__ import annotations

from collections.abc import Mapping

from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations.base import Arrays, Parameterization, Setting, Shape
from fedcl_distill.parameterizations.pixels import Pixels

PARAMETERIZATIONS: dict[str, type[Parameterization]] = {Pixels.name: Pixels}


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


__all__ = ["PARAMETERIZATIONS", "Arrays", "Parameterization", "Pixels", "Setting", "Shape", "build_parameterization"]
