"""Settings objects from TOML files and flags: one for every combination of the values given."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fedcl_distill.errors import SettingsError
from simulations.commands.fields import Setting, settings_of

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
