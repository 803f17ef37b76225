"""``fedcl-distill robustness``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.running.console import open_console
from simulations.running.records import RESULTS
from simulations.scenarios.cross_architecture import find_sets
from simulations.scenarios.robustness import RobustnessSettings, compare_robustness, table_of_robustness

app = typer.Typer(add_completion=False)

Sets = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Saved sets, or folders with results, whose sets are all taken; by default runs/.", show_default=False
    ),
]


@app.command("robustness")
@takes_settings(RobustnessSettings)
def robustness(cells: list[RobustnessSettings], sets: Sets = None, out: Out = DEFAULT_OUT) -> None:
    """Attack networks trained on saved sets by PGD, beside networks trained on real data: as accurate, and whole.

    Results that the folder already holds are not computed again.
    """
    console, results = open_console(), out / RESULTS
    with watching(console) as watcher:
        records = compare_robustness(find_sets(sets or [out]), cells, results, watcher)
    console.print(rich_table(table_of_robustness(records)))
    console.print(f"[dim]results:[/] {results}", highlight=False, soft_wrap=True)
