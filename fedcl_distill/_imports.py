"""Imports that wait: public names that take long to load (PEP 562), and optional packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from fedcl_distill.errors import DependencyError


def import_lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose public names lie in modules that take long to import.

    Args:
        package: its ``__name__``.
        places: public name to the module that has it, seen from the package, such as ``"engine"``, or, if it has
            another name there, ``"data:load"``. The modules are attributes of the package as well, as if they had been
            imported.
    """
    modules = {place.partition(":")[0] for place in places.values()}

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other_name = places[name].partition(":")
        return getattr(import_module(f"{package}.{module}"), other_name or name)

    return get


def require(module: str, purpose: str, install: str = "'fedcl-distill[data]'") -> Any:
    """Import and return ``module``.

    Raises:
        DependencyError: it is not installed; the message says what for and which ``pip install`` brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DependencyError(f"{purpose} needs {package}, not installed: pip install {install}") from error
