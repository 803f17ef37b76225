"""Commands that take settings: a flag for each, and files.

A command decorated with :func:`takes_settings` gets a flag for each field of the settings. Where a setting has several
values (a repeated flag, a TOML list), the command receives one settings object for every combination.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from simulations.commands.cells import read_cells
from simulations.commands.fields import Setting, settings_of

T = TypeVar("T")


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
