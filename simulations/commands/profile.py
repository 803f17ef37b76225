"""``fedcl-distill profile``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedcl_distill.errors import SettingsError
from simulations.bench.workload import Workload
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.profile.cases import CASES
from simulations.profile.run import run_profile
from simulations.profile.table import table_of_profile
from simulations.running.console import open_console
from simulations.running.records import RESULTS

app = typer.Typer(add_completion=False)

Cases = Annotated[list[str] | None, typer.Option("--case", help=f"What to profile, repeatable: {', '.join(CASES)}.")]
_COLUMNS = 3  # cases that a terminal has room for


@app.command("profile")
@takes_settings(Workload)
def profile(works: list[Workload], out: Out = DEFAULT_OUT, case: Cases = None) -> None:
    """Tell where the time goes, by groups of operators, and how it compares with the machine's matrix product.

    Every case runs in a fresh process, once by the clock, once under PyTorch's profiler and once to count operations.
    """
    unknown = sorted(set(case or []) - set(CASES))
    if unknown:
        raise SettingsError(f"unknown case {', '.join(unknown)}; known: {', '.join(CASES)}")
    console = open_console()
    for work in works:
        work.load()  # what is wrong with the data shall be told here, not by a process
        with watching(console) as watcher:
            records = run_profile(work, case or list(CASES), out / RESULTS, watcher)
        for start in range(0, len(records), _COLUMNS):
            console.print(rich_table(table_of_profile(records[start : start + _COLUMNS])))
