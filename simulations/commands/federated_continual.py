"""``fedcl-distill federated-continual``."""

from __future__ import annotations

import typer

from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, WorkerCount, records_of, show_results, watching
from simulations.flower.federated_continual_app import KIND
from simulations.running.compare import compare
from simulations.running.console import open_console
from simulations.running.failures import Failures
from simulations.running.records import RESULTS
from simulations.running.runs import Run
from simulations.scenarios.federated_continual import list_arms
from simulations.settings import FederatedContinualSettings

app = typer.Typer(add_completion=False)

_HELPS = {
    "strategy": f"One of {', '.join(list_arms())}.",
    "strategy_settings": "What the strategy shall do in its own way, such as reserve=false; statistics.views=20 is "
    "for statistics.",
    "method": "Clients distil by this, the server its memory; see fedcl-distill methods.",
    "method_settings": "What the method shall do in its own way, such as init=noise; dm.clamp=true is for dm alone.",
    "bits": "Of each sent and remembered value: 2, 4, 8, 16 or 32.",
}


@app.command()
@takes_settings(FederatedContinualSettings, helps=_HELPS)
def federated_continual(
    cells: list[FederatedContinualSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1
) -> None:
    """Let clients live through streams of experiences and measure what the global model still knows of each.

    Repeat a setting to compare, for instance: --stream same --stream shuffled --strategy distilled --strategy fedavg.
    Results that the folder already holds are not computed again; a run that was ended goes on from its last stage.
    """
    console, results, runs = open_console(), out / RESULTS, [Run(KIND, cell) for cell in cells]
    failures = Failures()
    with watching(console) as watcher:
        compare(runs, results, watcher, workers, failures=failures)
    show_results(console, records_of(results, runs), KIND, results)
    failures.check()
