"""``fedcl-distill bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedcl_distill.errors import SettingsError
from simulations.bench.cases import CASES
from simulations.bench.run import run_bench
from simulations.bench.table import table_of_bench
from simulations.bench.workload import Workload
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.running.console import open_console
from simulations.running.records import RESULTS
from simulations.scenarios.data import load_splits

app = typer.Typer(add_completion=False)

Cases = Annotated[list[str] | None, typer.Option("--case", help=f"What to measure, repeatable: {', '.join(CASES)}.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often every side is measured, in turns.")]


@app.command("bench")
@takes_settings(Workload)
def bench(works: list[Workload], out: Out = DEFAULT_OUT, case: Cases = None, rounds: Rounds = 2) -> None:
    """Measure the library beside plain implementations of the published loops, in one run, and print the ratios.

    Every side runs in a fresh process, in turns with the others. Figures are of CPU time, which hangs less on what else
    the machine does. Sides in bfloat16 gain where the processor has such instructions.
    """
    unknown = sorted(set(case or []) - set(CASES))
    if unknown:
        raise SettingsError(f"unknown case {', '.join(unknown)}; known: {', '.join(CASES)}")
    console = open_console()
    for work in works:
        load_splits(work.data, root=work.data_root)  # what is wrong with the data shall be told here, not by a child
        with watching(console) as watcher:
            records = run_bench(work, case or list(CASES), rounds, out / RESULTS, watcher)
        console.print(rich_table(table_of_bench(records)))
