"""Dataclasses of settings as flat records: what Flower's run configuration and ``ConfigRecord`` can carry.

Keys are the field names with "-" for "_". Neither of the two has a word for "nothing": None travels as 0 or "".
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fedcl_distill.errors import SettingsError

T = TypeVar("T")
Flat = str | int | float | bool | bytes | list[int] | list[float] | list[str] | list[bool] | list[bytes]


def to_flat(settings: Any) -> dict[str, Any]:
    """The fields of the dataclass ``settings`` by key: text, numbers and lists of floats; mappings as JSON."""
    kinds = typing.get_type_hints(type(settings))
    return {
        _key(field.name): _pack(getattr(settings, field.name), kinds[field.name])
        for field in dataclasses.fields(settings)
    }


def from_flat(kind: type[T], flat: Mapping[str, Flat]) -> T:
    """The inverse of :func:`to_flat`: fields without a key keep their default, other keys are not looked at.

    Raises:
        SettingsError: a value has another type than its field, or a field without default has no key.
    """
    kinds = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    given = {field.name: flat[_key(field.name)] for field in fields if _key(field.name) in flat}
    missing = [_key(f.name) for f in fields if f.name not in given and _is_required(f)]
    if missing:
        raise SettingsError(f"settings without {', '.join(missing)}")
    return kind(**{name: _unpack(_key(name), value, kinds[name]) for name, value in given.items()})


def _key(name: str) -> str:
    return name.replace("_", "-")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _pack(value: Any, kind: Any) -> Any:
    basic, optional = _basic(kind)
    if optional and value is None:
        return basic()
    if basic is dict:
        return json.dumps(dict(value), sort_keys=True)
    return list(value) if basic is list else value


def _unpack(key: str, value: Any, kind: Any) -> Any:
    basic, optional = _basic(kind)
    if basic is dict:
        return _unpack_mapping(key, value)
    if basic is list:
        if not isinstance(value, list | tuple) or not all(type(item) in (int, float) for item in value):
            raise SettingsError(f"{key} must be a list of numbers, got {value!r}")
        return tuple(_as_float(key, item) for item in value)
    if basic is float and type(value) is int:
        value = _as_float(key, value)
    if type(value) is not basic and not (optional and not value):
        raise SettingsError(f"{key} must be of type {basic.__name__}, got {value!r}")
    return None if optional and not value else value


def _as_float(key: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise SettingsError(f"{key} holds a number that is too large") from error


def _unpack_mapping(key: str, value: Any) -> dict[str, Any]:
    try:
        mapping = json.loads(value or "{}")
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{key} must be a JSON object, got {str(value)[:200]!r}") from error
    if not isinstance(mapping, dict):
        raise SettingsError(f"{key} must be a JSON object, got {value!r}")
    return mapping


def _basic(kind: Any) -> tuple[type, bool]:
    """The one type behind an annotation (dict for any mapping, list for any tuple), and whether None is allowed."""
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return _basic(inner)[0], True
    origin = typing.get_origin(kind) or kind
    return {Mapping: dict, tuple: list}.get(origin, origin), False
