"""``fedcl-distill methods``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedcl_distill.methods import Method, all_methods
from simulations.commands.fields import explained, introduction
from simulations.formats import ABSENT
from simulations.running.console import open_console

_ROOM_FOR_PAPERS = 110  # columns

Name = Annotated[str | None, typer.Argument(help="Show this method in full.", metavar="[METHOD]", show_default=False)]


def methods(name: Name = None) -> None:
    """List the methods that --method takes, family by family, or show one with its settings.

    Settings are given as --method-settings KEY=VALUE, for instance --method-settings dm.steps_per_network=5.
    """
    console = open_console()
    if name is None:
        _list(console)
    else:
        _show(console, Method.named(name))


def _list(console: Console) -> None:
    for family, members in groupby(all_methods(), key=lambda method: method.family):
        console.print(f"\n[bold cyan]{family}[/]", highlight=False)
        console.print(_family_table(members, console.width >= _ROOM_FOR_PAPERS))
    console.print("[dim]settings and defaults of one:[/] fedcl-distill methods METHOD", highlight=False)


def _family_table(members: Iterable[Method], with_papers: bool) -> Table:
    members = list(members)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("method", no_wrap=True, width=max(18, *(len(method.name) for method in members)))
    table.add_column("choose it when", ratio=3, overflow="fold")
    table.add_column("needs", ratio=2, overflow="fold")
    if with_papers:
        table.add_column("paper", ratio=2, overflow="fold")
    for method in members:
        texts = [method.name, method.choose_when, ", ".join(method.needs) or ABSENT, method.paper]
        table.add_row(*map(Text, texts[: 4 if with_papers else 3]))
    return table


def _show(console: Console, method: Method) -> None:
    console.print(Text(method.name, style="bold"), Text(f"({method.family})", style="cyan"))
    for paragraph in introduction(method.preset):
        console.print(Text(f"\n{paragraph}"))
    facts = Table.grid(padding=(0, 2))
    for title, text in (
        ("paper", method.paper),
        ("choose it when", method.choose_when),
        ("needs", ", ".join(method.needs) or ABSENT),
        ("labels", ", ".join(method.labels) or ABSENT),
    ):
        facts.add_row(Text(title, style="dim"), Text(text))
    console.print("", facts)
    settings = _settings_table(method)
    console.print(settings if settings.row_count else Text("\nThere are no settings."))


def _settings_table(method: Method) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it is", overflow="fold", ratio=1)
    helps = explained(method.preset, "Args")
    for parameter in method.settings.values():
        texts = [parameter.name, _default(parameter.default), helps.get(parameter.name, "")]
        table.add_row(*map(Text, texts))
    return table


def _default(value: Any) -> str:
    """As a flag would give it; what only Python code can say is shown as Python shows it."""
    if value is None or value is inspect.Parameter.empty:
        return ABSENT
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return value if isinstance(value, str) else repr(value)
