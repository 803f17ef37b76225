"""``fedcl-distill race``."""

from __future__ import annotations

import typer

from simulations.bench.race import RaceSettings, run_race, table_of_race
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.running.console import open_console
from simulations.running.records import RESULTS
from simulations.scenarios.data import load_splits

app = typer.Typer(add_completion=False)


@app.command("race")
@takes_settings(RaceSettings)
def race(races: list[RaceSettings], out: Out = DEFAULT_OUT) -> None:
    """Run the library and a published loop, judge both on their way, and tell who was as accurate when.

    Times are CPU-seconds of one thread. Judging is not counted.
    """
    console = open_console()
    for settings in races:
        load_splits(settings.data, root=settings.data_root)  # what is wrong shall be told here, not by a child
        with watching(console) as watcher:
            record = run_race(settings, out / RESULTS, watcher)
        console.print(rich_table(table_of_race(record)))
