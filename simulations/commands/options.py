"""Commands that take settings: a flag for each field, and TOML files."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import typer

from fedcl_distill.errors import SettingsError


def explained(thing: object, section: str) -> dict[str, str]:
    """What the docstring of ``thing`` says below ``section`` ("Attributes", "Args") about each name there."""
    found = re.search(rf"^{section}:\n((?:[ ]{{4}}.*\n?|\n)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    if found is None:
        return {}
    helps = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", found[1], re.MULTILINE):
        sentence = plain(text)
        for name in names.split(","):
            helps[name.strip()] = sentence[:1].upper() + sentence[1:]
    return helps


def introduction(thing: object) -> list[str]:
    """The paragraphs of the docstring of ``thing`` before its first section."""
    text = re.split(r"^(?:Args|Attributes|Raises|Returns):\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)[0]
    return [plain(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]


def plain(text: str) -> str:
    """``text`` in one line, without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", re.sub(r"\s+", " ", text)).replace("``", "").strip()


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


T = TypeVar("T")

_RUN_TABLES = "run"
_TOGETHER = "together"
_MAX_CELLS = 10_000
_OWNERS = {"method_settings": "method", "strategy_settings": "strategy", "attack_settings": "attack"}
"""Whose settings a mapping holds: those of whatever the other field names."""


def read_cells(
    kind: type[T], file: Path | None, flags: Mapping[str, Any], defaults: Mapping[str, Sequence[Any]] | None = None
) -> list[T]:
    """One ``kind`` for every combination of the given values; a flag replaces what the file says of its setting.

    Of a mapping, a flag replaces the keys that it names, and keeps the file's others.
    A file may hold tables ``[[run]]``: each is a list of combinations of its own, on top of the file's other keys.
    Settings that ``together`` names, such as ``together = ["seed", "order_seed"]``, take their first values at once,
    then their second ones, and so on.
    ``defaults`` are the values of settings that neither file nor flag names, in place of the class's.

    Raises:
        SettingsError: an unreadable file, an unknown key, a value that does not fit, a missing required setting.
    """
    known = {setting.name: setting for setting in settings_of(kind)}
    common = _read_toml(file) if file is not None else {}
    runs = common.pop(_RUN_TABLES, [{}])
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise SettingsError(f"{file}: {_RUN_TABLES!r} must be a list of tables, written [[{_RUN_TABLES}]]")
    given = [(known[name], values) for name, values in flags.items() if values is not None]
    cells: dict[str, T] = {}
    for run in runs:
        table = {**common, **run}
        together = _read_together(table.pop(_TOGETHER, []), known, str(file))
        told = _alternatives(table, known, str(file))
        values = {
            **{name: list(several) for name, several in (defaults or {}).items()},
            **told,
            **_flag_alternatives(given, told),
        }
        for cell in _combine(kind, values, known, together):
            cells.setdefault(json.dumps(dataclasses.asdict(cell), sort_keys=True, default=str), cell)  # type: ignore[call-overload]
    return list(cells.values())


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"could not read settings {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of too many digits, nested too deep
        raise SettingsError(f"{file} is not valid TOML: {error}") from error


def _alternatives(table: Mapping[str, Any], known: Mapping[str, Setting], source: str) -> dict[str, list[Any]]:
    """Values for each setting of a TOML table, by name."""
    unknown = sorted(key for key in table if key.replace("-", "_") not in known)
    if unknown:
        raise SettingsError(f"{source}: unknown setting {', '.join(unknown)}; known: {', '.join(known)}")
    found = {}
    for key, value in table.items():
        setting = known[key.replace("-", "_")]
        several = isinstance(value, list) and (setting.shape != "tuple" or any(isinstance(v, list) for v in value))
        found[setting.name] = [setting.read(one, source) for one in (value if several else [value])]
        if not found[setting.name]:
            raise SettingsError(f"{source}: {key} has no value")
    return found


def _flag_alternatives(given: Iterable[tuple[Setting, Any]], told: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Values for each setting that a flag gives; those of mappings are laid over each that the file ``told``."""
    found = {}
    for setting, values in given:
        if setting.shape == "mapping":
            own = setting.read(values, setting.flag)
            found[setting.name] = [_laid_over(one, own) for one in told.get(setting.name, [{}])]
        elif not isinstance(values, list):
            found[setting.name] = [setting.read(values, setting.flag)]
        else:
            found[setting.name] = [setting.read(value, setting.flag) for value in values]
    return found


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, with ``above`` last: later keys go before earlier ones that speak of the same setting in another way."""
    return {**{key: value for key, value in below.items() if key not in above}, **above}


def _read_together(names: Any, known: Mapping[str, Setting], source: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{source}: {_TOGETHER!r} must be a list of settings, got {names!r}")
    together = [name.replace("-", "_") for name in names]
    unknown = [name for name in together if name not in known]
    if unknown:
        raise SettingsError(f"{source}: unknown setting {', '.join(unknown)} in {_TOGETHER!r}")
    return together


def _combine(
    kind: type[T], values: Mapping[str, list[Any]], known: Mapping[str, Setting], together: Sequence[str]
) -> Iterator[T]:
    missing = [setting.flag for setting in known.values() if setting.required and setting.name not in values]
    if missing:
        raise SettingsError(f"{', '.join(missing)} must be given")
    axes = _axes(values, together)
    if math.prod(map(len, axes)) > _MAX_CELLS:
        raise SettingsError(f"settings make more than {_MAX_CELLS:,} combinations")
    for combination in itertools.product(*axes):
        chosen = {name: value for part in combination for name, value in part.items()}
        for name in chosen.keys() & _OWNERS.keys():
            owner = _OWNERS[name]
            chosen[name] = _that_concern(chosen.get(owner, known[owner].default), chosen[name])
        yield kind(**chosen)


def _axes(values: Mapping[str, list[Any]], together: Sequence[str]) -> list[list[dict[str, Any]]]:
    """What is combined: the values of each setting, and as one those of settings that go together."""
    apart = [[{name: one} for one in several] for name, several in values.items() if name not in together]
    joined = {name: values[name] for name in together if name in values}
    if len({len(several) for several in joined.values()}) > 1:
        counts = ", ".join(f"{name} has {len(several)}" for name, several in joined.items())
        raise SettingsError(f"settings that go together need as many values each: {counts}")
    steps = [dict(zip(joined, one, strict=True)) for one in zip(*joined.values(), strict=True)]
    return [*apart, steps] if joined else apart


def _that_concern(named: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``named``: ``dm.clamp`` and ``{"dm": {"clamp": …}}`` are for dm alone, ``clamp`` for all methods."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        owner, dot, name = key.partition(".")
        if isinstance(value, Mapping):
            found.update(value if key == named else {})
        elif not dot:
            found[key] = value
        elif owner == named:
            found[name] = value
    return found


def takes_settings(
    kind: type[T], *, helps: Mapping[str, str] | None = None, defaults: Mapping[str, Sequence[Any]] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags for every field of ``kind``; its first argument becomes the list of combinations.

    Args:
        kind: the dataclass.
        helps: explanations in place of the docstring's, where that speaks to programmers.
        defaults: values of settings that are not given, in place of the class's.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        settings = [
            dataclasses.replace(
                one,
                help=(helps or {}).get(one.name, one.help),
                default=_shown_together((defaults or {}).get(one.name)) or one.default,
            )
            for one in settings_of(kind)
        ]
        names = [setting.name for setting in settings]

        def run(**given: Any) -> None:
            flags = {name: _none_if_empty(given.pop(name)) for name in names}
            command(read_cells(kind, given.pop("settings"), flags, defaults), **given)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, _settings_file(), *(_parameter(setting) for setting in settings)]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _shown_together(values: Sequence[Any] | None) -> str:
    return ", ".join(map(str, values or ()))


def _settings_file() -> inspect.Parameter:
    option = typer.Option(
        None,
        "--settings",
        metavar="FILE.toml",
        help="Read settings from a file; flags go first, of KEY=VALUE key by key.",
    )
    return inspect.Parameter("settings", inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Path | None)


def _parameter(setting: Setting) -> inspect.Parameter:
    plain = setting.type is bool and setting.shape == "one"
    text = setting.shape != "one" or setting.type is bool
    annotation: Any = (bool | None) if plain else (list[str] | None if text else list[setting.type] | None)  # type: ignore[name-defined]
    option = typer.Option(
        None,
        f"{setting.flag}/--no-{setting.flag[2:]}" if plain else setting.flag,
        help=f"{setting.help} {_shown_default(setting)}".strip(),
        metavar=None if plain else _metavar(setting),
        show_default=False,
        rich_help_panel="Settings (several values of one: every combination runs)",
    )
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _metavar(setting: Setting) -> str:
    if setting.shape == "mapping":
        return "KEY=VALUE"
    one = "|".join(map(str, setting.choices)) or {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL"}[setting.type]
    return f"{one},…" if setting.shape == "tuple" else one


def _shown_default(setting: Setting) -> str:
    if setting.required:
        return "(required)"
    if setting.default in (None, "", (), {}):
        return ""
    if setting.shape == "tuple":
        return f"(default: {','.join(map(str, setting.default))})"
    return f"(default: {str(setting.default).lower() if setting.type is bool else setting.default})"


def _none_if_empty(values: Any) -> Any:
    return None if values == [] else values
