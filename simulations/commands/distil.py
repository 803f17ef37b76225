"""``fedcl-distill distil``."""

from __future__ import annotations

import typer

from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, WorkerCount, records_of, show_results, watching
from simulations.running.compare import compare
from simulations.running.console import open_console
from simulations.running.failures import Failures
from simulations.running.records import RESULTS
from simulations.running.runs import Run
from simulations.scenarios.distil import KIND, DistilSettings

app = typer.Typer(add_completion=False)


@app.command()
@takes_settings(DistilSettings)
def distil(cells: list[DistilSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1) -> None:
    """Distil a data set, save what is to be sent, and judge exactly that on real test data.

    Repeat a setting to compare, for instance: --method dm --method herding --method random --seed 0 --seed 1.
    Results that the folder already holds are not computed again; Ctrl-C leaves a checkpoint to go on from.
    """
    console, results, runs = open_console(), out / RESULTS, [Run(KIND, cell) for cell in cells]
    failures = Failures()
    with watching(console) as watcher:
        compare(runs, results, watcher, workers, failures=failures)
    show_results(console, records_of(results, runs), KIND, results)
    console.print(f"[dim]sets and pictures:[/] {out / 'sets'}", highlight=False, soft_wrap=True)
    failures.check()
