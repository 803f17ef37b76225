"""``fedcl-distill methods``."""

from __future__ import annotations

import inspect

import typer
from rich import box
from rich.table import Table

from fedcl_distill.methods import METHODS, Method
from simulations.console import open_console

app = typer.Typer(add_completion=False)


@app.command()
def methods() -> None:
    """List the methods that --method takes, what --method-settings each has, and when to choose it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("method", "family", "choose it when", "settings", "paper"):
        table.add_column(title, overflow="fold", no_wrap=title == "method")
    for method in METHODS.values():
        table.add_row(method.name, method.family, method.choose_when, _settings(method), method.paper)
    open_console().print(table)


def _settings(method: Method) -> str:
    parameters = inspect.signature(method.preset).parameters.values()
    named = [f"{one.name}={one.default}" for one in parameters if isinstance(one.default, bool | int | float | str)]
    return ", ".join([*named, *(one.name for one in parameters if one.default is None)])
