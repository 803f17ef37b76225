"""Every method by name, with what a user must know to choose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.core_sets import herding, k_center, random
from fedcl_distill.methods.dm import dm


@dataclass(frozen=True)
class Method:
    """A named method.

    Attributes:
        name: what command lines and results call it.
        preset: returns the method with its paper's defaults; keyword arguments override them.
        family: of the field: core set, distribution matching, …
        paper: where it comes from.
        choose_when: one sentence of advice.
        needs: what it costs beside a network's forward and backward passes: "double backward" (second derivatives),
            "training on the real data" (before or while distilling), memory that grows with something, real samples in
            the result.
    """

    name: str
    preset: Callable[..., Distiller]
    family: str
    paper: str
    choose_when: str
    needs: tuple[str, ...] = ()


_METHODS = (
    Method(
        "dm",
        dm,
        "distribution matching",
        "Zhao and Bilen 2023, Dataset Condensation with Distribution Matching",
        "you train ConvNets and have minutes of CPU: cheap steps, no second derivatives, scales to many samples",
    ),
    Method("random", random, "core set", "-", "as the baseline of every comparison"),
    Method(
        "herding",
        herding,
        "core set",
        "Welling 2009; Rebuffi et al. 2017 (iCaRL)",
        "you may keep real samples and want one or a few typical ones",
    ),
    Method(
        "k-center",
        k_center,
        "core set",
        "Sener and Savarese 2018",
        "you may keep real samples and want to cover rare ones",
    ),
)
METHODS = {method.name: method for method in _METHODS}


def list_methods() -> list[str]:
    """Names of all methods."""
    return sorted(METHODS)


def build_method(name: str, **settings: Any) -> Distiller:
    """The method called ``name``, with ``settings`` in place of its defaults.

    Raises:
        SettingsError: the method or a setting is unknown.
    """
    if name not in METHODS:
        raise SettingsError(f"unknown method {name!r}; known: {', '.join(list_methods())}")
    known = inspect.signature(METHODS[name].preset).parameters
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(
            f"method {name!r} has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return METHODS[name].preset(**settings)
