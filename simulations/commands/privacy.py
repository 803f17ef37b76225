"""``fedcl-distill privacy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from fedcl_distill.files import write_atomically
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.report.drawing import standalone
from simulations.report.epsilon import drawing_of_privacy
from simulations.running.compare import compare
from simulations.running.console import open_console
from simulations.running.failures import Failures
from simulations.running.records import RESULTS, Record, read_records
from simulations.running.runs import Run
from simulations.running.watch import Watcher
from simulations.scenarios.privacy import KIND, PrivacySettings, run_privacy
from simulations.tables.privacy_curves import privacy_table, privacy_tasks

app = typer.Typer(add_completion=False)

With = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Folders with results of other methods, to be shown beside these.", metavar="DIR"),
]
Drawing = Annotated[Path | None, typer.Option("--drawing", help="Also draw the curves.", metavar="FILE.svg")]


@app.command()
@takes_settings(PrivacySettings)
def privacy(cells: list[PrivacySettings], out: Out = DEFAULT_OUT, beside: With = None, drawing: Drawing = None) -> None:
    """Accuracy against ε: private statistics with more and more noise, from one pass over the data.

    Repeat a setting to compare, for instance: --epsilon 1 --epsilon 10 --epsilon 0 --nodes 1 --nodes 10; ε = 0 adds no
    noise. Results that the folder already holds are not computed again. ``--with`` shows results of ``distil`` (psg,
    or methods that claim nothing) and of ``federated --strategy statistics`` in the same tables and curves.
    """
    console, results, failures = open_console(), out / RESULTS, Failures()
    with watching(console) as watcher:
        compare([Run(KIND, cell) for cell in cells], results, watcher, perform=_perform, failures=failures)
    tasks = privacy_tasks(record for folder in (out, *(beside or [])) for record in read_records(folder / RESULTS))
    for task in tasks:
        console.print(rich_table(privacy_table(task)))
    if drawing is not None and tasks:
        write_atomically(drawing, standalone(drawing_of_privacy(tasks)).encode())
        console.print(f"[dim]drawing:[/] {drawing}", highlight=False, soft_wrap=True)
    console.print(f"[dim]results:[/] {results}", highlight=False, soft_wrap=True)
    failures.check()


def _perform(run: Run, watcher: Watcher, folder: Path) -> Record:
    return run_privacy(cast(PrivacySettings, run.settings), watcher, folder)
