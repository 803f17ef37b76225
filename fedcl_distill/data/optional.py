"""Optional packages, imported at the moment they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fedcl_distill.errors import DependencyError


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
