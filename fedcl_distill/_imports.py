"""Imports that wait: public names that take long to load (PEP 562), optional packages, and the floors above."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
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
        found = getattr(import_module(f"{package}.{module}"), other_name or name)
        setattr(sys.modules[package], name, found)  # so that Python asks once
        return found

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


_ROOT = Path(__file__).resolve().parents[1]
_FLOORS = ("strategies", "simulations")


def names_of(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a module that offers the public names of ``package``, a floor above.

    Raises:
        DependencyError: from the ``__getattr__``, where something else of that name is found in place of ours.
    """

    def get(name: str) -> Any:
        if name.startswith("__"):  # asked for by Python itself
            raise AttributeError(name)
        check_floors()
        module = import_module(package)
        if name not in module.__all__:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(module, name)

    def names() -> list[str]:
        check_floors()
        return sorted(import_module(package).__all__)

    return get, names


def check_floors() -> None:
    """Return if ``strategies`` and ``simulations`` are this package's own.

    Raises:
        DependencyError: a file or folder of that name stands before ours on Python's path; the message names it.
    """
    for name in _FLOORS:
        spec = find_spec(name)
        if spec is None:
            raise DependencyError(
                f"{name!r}, a part of fedcl-distill, is not installed beside {_ROOT / 'fedcl_distill'}"
            )
        places = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
        if places != [_ROOT / name]:
            found = places[0] if places else Path(str(spec.origin))
            raise DependencyError(
                f"{found} is imported in place of fedcl-distill's own {name!r}: give it another name, or start Python "
                "with -P outside of its folder"
            )
