"""Presets that are another preset but for a few parts: what they say is exactly how two papers differ."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from fedcl_distill.engine import Engine
from fedcl_distill.errors import SettingsError

P = ParamSpec("P")
T = TypeVar("T")


def takes_optimiser(*shortcuts: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say that a preset's setting ``optimiser`` stands in place of its settings ``shortcuts``.

    Raises:
        SettingsError: on a call of the preset that gives both.
    """

    def decorate(preset: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(preset)
        def build(*args: P.args, **given: P.kwargs) -> T:
            both = [name for name in shortcuts if name in given]
            if both and given.get("optimiser") is not None:
                raise SettingsError(f"{preset.__name__}: give optimiser or {' and '.join(both)}, not both")
            return preset(*args, **given)

        return build

    return decorate


def variant_of(
    preset: Callable[P, Engine], **defaults: Any
) -> Callable[[Callable[[Engine], Engine]], Callable[P, Engine]]:
    """Make a preset with the settings of ``preset``, other ``defaults``, and an engine that the function changes.

    Raises:
        TypeError: ``preset`` has no setting of such a name.
    """
    signature = inspect.signature(preset)
    signature.bind_partial(**defaults)
    parameters = [one.replace(default=defaults.get(name, one.default)) for name, one in signature.parameters.items()]

    def decorate(change: Callable[[Engine], Engine]) -> Callable[P, Engine]:
        @functools.wraps(change)
        def build(*args: P.args, **settings: P.kwargs) -> Engine:
            return change(preset(*args, **{**defaults, **settings}))

        build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        _, args, explained = (inspect.getdoc(preset) or "").partition("Args:")
        build.__doc__ = f"{inspect.getdoc(change)}\n\n{args}{explained}"
        return build

    return decorate


def with_objective(engine: Engine, name: str, **changes: Any) -> Engine:
    """``engine`` under another name, and with other settings of its objective."""
    return replace(engine, name=name, objective=replace(engine.objective, **changes))  # type: ignore[type-var]
