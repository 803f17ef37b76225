"""What subcommands share: where results go, and how they are shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import suggest
from simulations.running.console import watcher_for
from simulations.running.progress import InsistentInterrupts, Watcher
from simulations.running.runs import Record, Run, read_records
from simulations.tables.comparison import Table, table_of
from simulations.tables.variants import scenarios

REPORT = "report.html"

Out = Annotated[
    Path, typer.Option(help="Folder for results, one JSON line each, and for synthetic sets.", metavar="DIR")
]
DEFAULT_OUT = Path("runs")
WorkerCount = Annotated[
    int,
    typer.Option("--workers", min=1, help="Runs at a time; several run in processes of one thread each."),
]
_LABEL_WIDTH = 24


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A watcher on ``console``; Ctrl-C ends what runs inside the block."""
    with InsistentInterrupts(watcher_for(console)) as watcher:
        yield watcher


def records_of(results: Path, runs: Iterable[Run]) -> list[Record]:
    """The results of ``runs``, also those of earlier calls."""
    wanted = {run.key for run in runs}
    return [record for record in read_records(results) if record["key"] in wanted]


def show_results(console: Console, records: Iterable[Record], kind: str, results: Path) -> None:
    """Print a table for every scenario among ``records``, and where the results are."""
    for scenario in scenarios(records, kind):
        console.print(rich_table(table_of(scenario)))
    say_where(console, "results", results)


def say_where(console: Console, what: str, place: Path) -> None:
    """Say where ``what`` is, if it is there: a comparison of which all runs failed leaves nothing."""
    if place.exists():
        console.print(f"[dim]{what}:[/] {place}", highlight=False, soft_wrap=True)


def rich_table(table: Table) -> RichTable:
    """The table for a terminal: names to the left, numbers to the right."""
    drawn = RichTable(title=_plain(table.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    drawn.caption, drawn.caption_justify = _plain("\n".join(table.notes)), "left"
    for position, column in enumerate(table.columns):
        drawn.add_column(_plain(column), justify="left" if position == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(_plain, row))
    return drawn


def _plain(text: str) -> str:
    """``text`` with nothing in it that rich takes for markup."""
    return text.replace("[", r"\[")


def check_names(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Return if all ``given`` are ``known``, before any work is begun.

    Raises:
        SettingsError: one is not; the message has the nearest name.
    """
    for name in given:
        if name not in known:
            raise SettingsError(suggest(what, name, known))
