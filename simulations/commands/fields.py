"""What settings there are: every one is named, typed and explained in one place, the dataclass that holds it."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, get_args, get_origin

from fedcl_distill.errors import SettingsError
from simulations.commands.docstrings import explained

TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Setting:
    """One field of a settings dataclass.

    Attributes:
        name: of the field; its flag is ``--name`` with hyphens.
        type: bool, int, float or str: of the value, or of each item of a tuple.
        help: from the class's docstring.
        default: what holds where nothing is given.
        shape: "one" value, a "tuple" of them (``1,2,3`` as a flag) or a "mapping" (``key=value`` as a flag).
        choices: the values a Literal allows.
        required: there is no default.
    """

    name: str
    type: type
    help: str
    default: Any = None
    shape: Literal["one", "tuple", "mapping"] = "one"
    choices: tuple[Any, ...] = ()
    required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def read(self, value: Any, source: str) -> Any:
        """``value`` as the field takes it.

        Raises:
            SettingsError: it is of another type, or none of the choices; ``source`` says where it came from.
        """
        if self.shape == "mapping":
            return _read_mapping(value, self, source)
        if self.shape == "tuple":
            items = value.split(",") if isinstance(value, str) else value
            if not isinstance(items, list | tuple):
                raise self._error(value, source)
            return tuple(self._read_one(item, source) for item in items)
        return self._read_one(value, source)

    def _read_one(self, value: Any, source: str) -> Any:
        if self.shape == "tuple" and isinstance(value, str) and self.type in (int, float):
            value = _scalar(value.strip())
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type or (self.choices and value not in self.choices):
            raise self._error(value, source)
        return value

    def _error(self, value: Any, source: str) -> SettingsError:
        expected = " or ".join(map(str, self.choices)) if self.choices else TYPE_NAMES[self.type]
        if self.shape == "tuple":
            expected = f"a list of {expected}"
        return SettingsError(f"{source}: {self.name} must be {expected}, got {value!r}")


def settings_of(kind: type) -> tuple[Setting, ...]:
    """The settings that the dataclass ``kind`` has, in the order of its fields."""
    hints = typing.get_type_hints(kind)
    helps = {name: text for one in reversed(kind.__mro__) for name, text in explained(one, "Attributes").items()}
    found = []
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        value_type, shape, choices = _analyse(hints[field.name], f"{kind.__name__}.{field.name}")
        required = field.default is MISSING and field.default_factory is MISSING
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found.append(
            Setting(
                name=field.name,
                type=value_type,
                help=helps.get(field.name, ""),
                default=None if required else default,
                shape=shape,
                choices=choices,
                required=required,
            )
        )
    return tuple(found)


def _analyse(hint: Any, where: str) -> tuple[type, Literal["one", "tuple", "mapping"], tuple[Any, ...]]:
    """Value type, shape and choices of the annotation ``hint``."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = [one for one in get_args(hint) if one is not type(None)]
        if set(inner) == {int, float}:
            return float, "one", ()
        if len(inner) == 1:
            return _analyse(inner[0], where)
    if hint in TYPE_NAMES:
        return hint, "one", ()
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return type(choices[0]), "one", choices
    if get_origin(hint) is tuple:
        value_type, _, choices = _analyse(get_args(hint)[0], where)
        return value_type, "tuple", choices
    if hint is dict or get_origin(hint) in (dict, Mapping):
        return str, "mapping", ()
    raise TypeError(f"{where}: no flag can be made for {hint}")


def _read_mapping(value: Any, setting: Setting, source: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list):
        raise SettingsError(f"{source}: {setting.name} must be a table, got {value!r}")
    found = {}
    for item in value:
        key, equals, text = str(item).partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"{source}: {setting.name} takes key=value, got {item!r}")
        found[key.strip()] = _scalar(text.strip())
    return found


def _scalar(text: str) -> Any:
    """``text`` as a TOML value if it is one, otherwise as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
