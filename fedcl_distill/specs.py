"""Objects from texts such as ``tiles:factor=2``: a name and settings of one value each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fedcl_distill.errors import SettingsError

T = TypeVar("T")


def read_spec(what: str, text: str, known: Mapping[str, Callable[..., T]]) -> T:
    """The object that ``text`` names, one of ``known`` called with the settings after the colon.

    A value is read as JSON where it is that (numbers, true, null), else as a text.

    Raises:
        SettingsError: the name or a setting is unknown, or a value does not fit.
    """
    name, _, rest = text.partition(":")
    if name.strip() not in known:
        raise SettingsError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    settings: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"cannot read {item!r} in {text!r}; expected key=value")
        settings[key.strip()] = _value(value.strip())
    try:
        return known[name.strip()](**settings)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{what} {name!r} does not take these settings: {error}") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
