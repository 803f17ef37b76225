"""Every method by name."""

from __future__ import annotations

import inspect
from typing import Any

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.catalogue import CATALOGUE

METHODS = {method.name: method for method in CATALOGUE}


def list_methods() -> list[str]:
    """Names of all methods."""
    return sorted(METHODS)


def known_settings(name: str) -> list[str]:
    """Names of the settings that the method called ``name`` takes.

    Raises:
        SettingsError: there is no such method.
    """
    if name not in METHODS:
        raise SettingsError(f"unknown method {name!r}; known: {', '.join(list_methods())}")
    return list(inspect.signature(METHODS[name].preset).parameters)


def build_method(name: str, **settings: Any) -> Distiller:
    """The method called ``name``, with ``settings`` in place of its defaults.

    Raises:
        SettingsError: the method or a setting is unknown, or settings do not fit together.
    """
    known = known_settings(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(
            f"method {name!r} has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return METHODS[name].preset(**settings)
