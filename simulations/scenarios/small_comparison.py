"""Both worlds on 8x8 digits in a minute of processor time: what ``fedcl-distill`` without a subcommand runs."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from simulations.commands.shared import REPORT, RESULTS, rich_table, watching
from simulations.report import write_report
from simulations.running.compare import compare
from simulations.running.console import open_console
from simulations.running.records import read_records
from simulations.running.runs import Run
from simulations.running.watch import Watcher
from simulations.scenarios.distil import DistilSettings
from simulations.tables.arms import scenarios
from simulations.tables.comparison import table_of
from simulations.tables.formats import seconds
from strategies.continual import ContinualSettings
from strategies.federated import FederatedSettings

_SMALL_NETWORK = "convnet:width=32"
_QUICK_DM = {"architecture": _SMALL_NETWORK, "steps_per_view": 5}

_MOST_WORKERS = 3

_DISTIL = DistilSettings(images_per_class=1, distil_steps=500, architecture=_SMALL_NETWORK)
_FEDERATED = FederatedSettings(clients=4, partition="dirichlet:0.1", architecture=_SMALL_NETWORK)
_ONE_SHOT = replace(_FEDERATED, strategy="one-shot", images_per_class=1)
_CONTINUAL = ContinualSettings(experiences=5, images_per_class=1, architecture=_SMALL_NETWORK, epochs=10)

RUNS = [
    Run(
        "continual", replace(_CONTINUAL, strategy="distilled", method="dm", method_settings=_QUICK_DM, distil_steps=300)
    ),
    Run("federated", replace(_FEDERATED, strategy="fedavg", rounds=20, local_epochs=5)),
    Run("distil", replace(_DISTIL, method="dm", method_settings=_QUICK_DM)),
    Run("federated", replace(_ONE_SHOT, method="dm", method_settings=_QUICK_DM, distil_steps=300)),
    Run("continual", replace(_CONTINUAL, strategy="naive")),
    Run("continual", replace(_CONTINUAL, strategy="reservoir")),
    Run("distil", replace(_DISTIL, method="herding")),
    Run("distil", replace(_DISTIL, method="random")),
    Run("federated", replace(_ONE_SHOT, method="random")),
]
"""The longest first, so that processes end at about the same time."""


def show_small_comparison(out: Path) -> None:
    """Run what ``out`` does not hold yet, print the tables, write the report and say where it is."""
    started, console = time.monotonic(), open_console()
    console.print("[bold]A small comparison of both worlds[/] on 8x8 digits\n", highlight=False)
    with watching(console) as watcher:
        run_small_comparison(out, watcher)
    records = list(read_records(out / RESULTS))
    for kind in ("distil", "federated", "continual"):
        for scenario in scenarios(records, kind):
            console.print(f"\n[bold cyan]{kind}[/]")
            console.print(rich_table(table_of(scenario)))
    page = write_report(out / RESULTS, out / REPORT)
    console.print(f"[bold green]done[/] in {seconds(time.monotonic() - started)}", highlight=False)
    console.print(f"[dim]results:[/] {out / RESULTS}", highlight=False, soft_wrap=True)
    console.print(f"[dim]report:[/]  {page}", highlight=False, soft_wrap=True)


def run_small_comparison(out: Path, watcher: Watcher) -> None:
    """Append the results that are missing to those in ``out``, as many at a time as there are cores, three at most."""
    compare(RUNS, out / RESULTS, watcher, workers=min(_MOST_WORKERS, os.cpu_count() or 1))
