"""Commands that take settings: a flag for each, and TOML files.

A command decorated with :func:`takes_settings` gets a flag for each field of a settings class. Where a setting has
several values (a repeated flag, commas, a TOML list), the command receives one settings object for every combination.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import math
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import parse
from fedcl_distill.settings import suggest
from simulations.commands.fields import Setting, read_table, settings_of, with_flags
from simulations.data import DataOptions, with_options

T = TypeVar("T")

_RUN_TABLES = "run"
_TOGETHER = "together"
_MAX_CELLS = 10_000
_OWNERS = {"method_settings": "method", "strategy_settings": "strategy", "attack_settings": "attack"}
"""Whose settings a table holds: those of whatever the other field names."""
_PANELS = {
    "strategy": "Strategy",
    "data": "Data",
    "method": "Distillation",
    "replay_ratio": "Replay",
    "local_epochs": "Local training",
    "architecture": "Networks and training",
    "quorum": "Answers of clients",
    "stream": "Stream",
    "memory_images_per_class": "Memory",
    "attack": "Attack",
    "image_size": "Files of your own",
}
"""Titles of groups of flags, by the first setting of each."""
_DATA = "data"
_MAIN_OPTIONS = ("image_size", "label_column")
"""Of those that say how data are read, what ``--help`` shows."""


def read_cells(
    kind: type[T], file: Path | None, flags: Mapping[str, Any], defaults: Mapping[str, Sequence[Any]] | None = None
) -> list[T]:
    """One ``kind`` for every combination of the given values; a flag replaces what the file says of its setting.

    Of a table, a flag replaces the keys that it names, and keeps the file's others. Settings of a method, a strategy or
    an attack may be written behind its name, too: ``dm:clamp=true``.
    A file may hold tables ``[[run]]``: each is a list of combinations of its own, on top of the file's other keys.
    Where there is a setting ``data``, those of :class:`~simulations.data.DataOptions` are known, too, and come to stand
    behind it. Settings that ``together`` names, such as ``together = ["seed", "order_seed"]``, take their first values
    at once, then their second ones, and so on.

    Args:
        kind: the settings class.
        file: TOML, or None.
        flags: by name what the flags said: texts, or true and false of a switch; None of those that are not given.
        defaults: values of settings that neither file nor flag names, in place of the class's.

    Raises:
        SettingsError: an unreadable file, an unknown key, a value that does not fit, a missing required setting.
    """
    known = _known(kind)
    common = _read_toml(file) if file is not None else {}
    runs = common.pop(_RUN_TABLES, [{}])
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise SettingsError(f"{file}: {_RUN_TABLES!r} must be a list of tables, written [[{_RUN_TABLES}]]")
    given = [(known[name], said) for name, said in flags.items() if said is not None]
    cells: dict[str, T] = {}
    for run in runs:
        table = {**common, **run}
        together = _read_together(table.pop(_TOGETHER, []), known, str(file))
        told = _told(table, known, str(file))
        values = {
            **{name: list(several) for name, several in (defaults or {}).items()},
            **told,
            **_flagged(given, told),
        }
        for cell in _combine(kind, values, known, together, by_flags=file is None):
            cells.setdefault(json.dumps(dataclasses.asdict(cell), sort_keys=True, default=str), cell)  # type: ignore[call-overload]
    return list(cells.values())


def takes_settings(
    kind: type[T],
    *,
    main: Collection[str] = (),
    helps: Mapping[str, str] | None = None,
    defaults: Mapping[str, Sequence[Any]] | None = None,
    steps: int | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags for every field of ``kind``; its first argument becomes the list of combinations.

    Args:
        kind: the settings class.
        main: settings that ``--help`` shows; ``--help-all`` shows the others as well. All where it is empty.
        helps: explanations in place of the docstring's.
        defaults: values of settings that are not given, in place of the class's.
        steps: of each distillation where neither flags nor a file speak of steps or seconds.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        settings = {
            name: dataclasses.replace(one, help=(helps or {}).get(name, one.help)) for name, one in _known(kind).items()
        }
        visible = {*main, *(_MAIN_OPTIONS if _DATA in main else ())}
        shown = {**{name: ", ".join(map(str, several)) for name, several in (defaults or {}).items()}}
        if steps is not None:
            shown["distil_steps"] = f"{steps} unless seconds are given; null for the method's own"

        def run(**given: Any) -> None:
            flags = {name: given.pop(name) or None if name in _lists else given.pop(name) for name in settings}
            file = given.pop("settings")
            given.pop("help_all", None)
            chosen = dict(defaults or {})
            if steps is not None and file is None and not (flags["distil_steps"] or flags["distil_seconds"]):
                chosen["distil_steps"] = [steps]
            command(read_cells(kind, file, flags, chosen), **given)

        _lists = {name for name, one in settings.items() if one.shape != "switch"}
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        flags = [_parameter(one, shown.get(name), not main or name in visible) for name, one in settings.items()]
        parameters = [*own, _FILE, *([_HELP_ALL] if main else []), *flags]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _known(kind: type) -> dict[str, Setting]:
    """The settings of ``kind``, and those that say how the files that its ``data`` name are read."""
    own = settings_of(kind)
    return (
        {**own, **{name: one for name, one in settings_of(DataOptions).items() if name not in own}}
        if _DATA in own
        else own
    )


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"could not read settings {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of too many digits, nested too deep
        raise SettingsError(f"{file} is not valid TOML: {error}") from error


def _told(table: Mapping[str, Any], known: Mapping[str, Setting], source: str) -> dict[str, list[Any]]:
    """Values for each setting of a TOML table, by name."""
    found = {}
    for key, value in table.items():
        setting = known.get(key.replace("-", "_"))
        if setting is None:
            raise SettingsError(f"{source}: {suggest('setting', key, known)}")
        several = isinstance(value, list) and (setting.shape != "list" or any(isinstance(v, list) for v in value))
        found[setting.name] = [
            setting.check(one, f"{source}: {setting.name}") for one in (value if several else [value])
        ]
        if not found[setting.name]:
            raise SettingsError(f"{source}: {key} has no value")
    return found


def _flagged(given: Iterable[tuple[Setting, Any]], told: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Values for each setting that a flag gives; those of tables are laid over each that the file ``told``."""
    found = {}
    for setting, said in given:
        if setting.shape == "table":
            own = read_table(said, setting.flag)
            found[setting.name] = [_laid_over(one, own) for one in told.get(setting.name, [{}])]
        elif setting.shape == "switch":
            found[setting.name] = [said]
        else:
            found[setting.name] = [setting.read_flag(one) for text in said for one in _split(setting, text)]
    return found


def _split(setting: Setting, text: str) -> list[str]:
    named = setting.name in _OWNERS.values() and ":" not in text
    return [one.strip() for one in text.split(",")] if named else setting.alternatives(text)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both; what ``above`` says of a key for all goes before what ``below`` says of it for one, for it is the later."""
    common = {key for key, value in above.items() if not _is_owned(value)}
    found: dict[str, Any] = {}
    for key, value in below.items():
        found[key] = {k: v for k, v in value.items() if k not in common} if _is_owned(value) else value
    for key, value in above.items():
        found[key] = {**found.get(key, {}), **value} if _is_owned(value) and _is_owned(found.get(key)) else value
    return found


def _is_owned(value: Any) -> bool:
    """Whether ``value`` is a table of settings for one owner, and not a part, which has a name."""
    return isinstance(value, Mapping) and "name" not in value


def _read_together(names: Any, known: Mapping[str, Setting], source: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{source}: {_TOGETHER!r} must be a list of settings, got {names!r}")
    together = [name.replace("-", "_") for name in names]
    for name in together:
        if name not in known:
            raise SettingsError(f"{source}: {suggest('setting', name, known)} in {_TOGETHER!r}")
    return together


def _combine(
    kind: type[T],
    values: Mapping[str, list[Any]],
    known: Mapping[str, Setting],
    together: Sequence[str],
    *,
    by_flags: bool,
) -> Iterator[T]:
    missing = [setting.flag for setting in known.values() if setting.required and setting.name not in values]
    if missing:
        raise SettingsError(f"{', '.join(missing)} must be given")
    axes = _axes(values, together)
    if math.prod(map(len, axes)) > _MAX_CELLS:
        raise SettingsError(f"settings make more than {_MAX_CELLS:,} combinations")
    for combination in itertools.product(*axes):
        chosen = {name: value for part in combination for name, value in part.items()}
        for table, owner in _OWNERS.items():
            if table in known and (table in chosen or ":" in str(chosen.get(owner, ""))):
                chosen |= _owned(table, owner, chosen, known[owner].default)
        reading = {name: chosen.pop(name) for name in chosen.keys() & known.keys() - settings_of(kind).keys()}
        if any(value is not None for value in reading.values()):
            chosen[_DATA] = with_options(chosen.get(_DATA, known[_DATA].default), reading)
        yield _made(kind, chosen, known if by_flags else ())


def _made(kind: type[T], chosen: Mapping[str, Any], flags: Iterable[str]) -> T:
    """The settings object; what it refuses is told with the flags of fields that ``flags`` names."""
    try:
        return kind(**chosen)
    except SettingsError as error:
        raise SettingsError(with_flags(str(error), flags)) from error


def _owned(table: str, owner: str, chosen: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """The owner's name, and the settings that concern it: those for all, those for it, and those behind its name."""
    behind = parse(str(chosen.get(owner, default)))
    name = behind.pop("name")
    found: dict[str, Any] = {}
    for key, value in chosen.get(table, {}).items():
        if not _is_owned(value):
            found[key] = value
        elif key == name:
            found |= value
    return {owner: name, table: found | behind}


def _axes(values: Mapping[str, list[Any]], together: Sequence[str]) -> list[list[dict[str, Any]]]:
    """What is combined: the values of each setting, and as one those of settings that go together."""
    apart = [[{name: one} for one in several] for name, several in values.items() if name not in together]
    joined = {name: values[name] for name in together if name in values}
    if len({len(several) for several in joined.values()}) > 1:
        counts = ", ".join(f"{name} has {len(several)}" for name, several in joined.items())
        raise SettingsError(f"settings that go together need as many values each: {counts}")
    steps = [dict(zip(joined, one, strict=True)) for one in zip(*joined.values(), strict=True)]
    return [*apart, steps] if joined else apart


def _show_all(context: typer.Context, wanted: bool) -> None:
    if not wanted:
        return
    for parameter in context.command.params:
        parameter.hidden = False  # type: ignore[attr-defined]
    text = context.get_help()  # rich prints it and returns nothing
    if text:
        typer.echo(text)
    raise typer.Exit


_FILE = inspect.Parameter(
    "settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=typer.Option(
        None,
        "--settings",
        metavar="FILE.toml",
        help="Read settings from a file; flags go first, of KEY=VALUE key by key.",
    ),
    annotation=Path | None,
)
_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=typer.Option(False, "--help-all", is_eager=True, callback=_show_all, help="Show every setting and exit."),
    annotation=bool,
)
_MAIN_PANEL = "Settings (several values, repeated or with commas: every combination runs)"


def _parameter(setting: Setting, default: str | None, shown: bool) -> inspect.Parameter:
    switch = setting.shape == "switch"
    option = typer.Option(
        None,
        f"{setting.flag}/--no-{setting.flag[2:]}" if switch else setting.flag,
        help=f"{setting.help} {_facts(setting, default)}".strip(),
        metavar=None if switch else setting.metavar,
        show_default=False,
        hidden=not shown,
        rich_help_panel=_MAIN_PANEL if shown else _PANELS.get(setting.group, "Further settings"),
    )
    annotation: Any = (bool | None) if switch else (list[str] | None)
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)


def _facts(setting: Setting, default: str | None) -> str:
    """Range and default, in brackets."""
    parts = [setting.range, "required" if setting.required else _default(setting, default)]
    text = "; ".join(filter(None, parts))
    return f"({text})" if text else ""


def _default(setting: Setting, default: str | None) -> str:
    value = setting.default
    if default is None and value in (None, "", (), {}):
        return ""
    if default is None:
        plain = ",".join(map(str, value)) if setting.shape == "list" else str(value)
        default = plain.lower() if setting.shape == "switch" else plain
    return f"default: {default}"
