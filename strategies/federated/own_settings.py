"""What a strategy does in its own way: settings that its builder declares, checked before they reach it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fedcl_distill.errors import SettingsError

T = TypeVar("T")


def takes(*kinds: type, without: Sequence[str] = ()) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let a strategy's own settings be the fields of the dataclasses ``kinds``, but for those named in ``without``.

    Settings have no word for None: fields of that default are texts, and "" stands for it.
    """
    own = [[one for one in dataclasses.fields(kind) if one.name not in without] for kind in kinds]

    def decorate(build: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(build)
        def from_settings(plan: Any, **given: Any) -> T:
            chosen = [
                {
                    one.name: None if one.default is None and given[one.name] == "" else given[one.name]
                    for one in fields
                    if one.name in given
                }
                for fields in own
            ]
            return build(plan, *(kind(**values) for kind, values in zip(kinds, chosen, strict=True)))

        plan = inspect.Parameter("plan", inspect.Parameter.POSITIONAL_ONLY)
        settings = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default="" if one.default is None else one.default
            )
            for fields in own
            for one in fields
        ]
        from_settings.__signature__ = inspect.Signature([plan, *settings])  # type: ignore[attr-defined]
        return from_settings

    return decorate


def checked(name: str, build: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, once names are known and values of their default's type; whole numbers are taken for floats."""
    defaults = {
        one.name: one.default for one in inspect.signature(build).parameters.values() if one.kind == one.KEYWORD_ONLY
    }
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        known = ", ".join(defaults) or "none"
        raise SettingsError(f"strategy {name!r} has no setting {', '.join(unknown)}; it has: {known}")
    return {key: _of_type(type(defaults[key]), value, f"{name}: {key}") for key, value in given.items()}


def _of_type(kind: type, value: Any, what: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingsError(f"{what} must be of type {kind.__name__}, got {value!r}")
    return value
