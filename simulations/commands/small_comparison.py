"""``fedcl-distill`` without a subcommand: a small comparison of both worlds, and its report."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simulations.running.pool import PoolSettings, Worker, start_workers
from simulations.running.runs import RESULTS, Run

_MAX_WORKERS = 3
_SMALL_NETWORK = "convnet:width=32"
_QUICK_DM = {"architecture": _SMALL_NETWORK, "steps_per_network": 5}
_DM_STEPS = 100  # as good here as three to five times as many (docs/speed.md)


def show_small_comparison(out: Path) -> None:
    """Run what ``out`` does not hold yet, print the tables, write the report and say where it is."""
    started, count = time.monotonic(), min(_MAX_WORKERS, os.cpu_count() or 1)
    anew = not (out / RESULTS).exists()  # otherwise little or nothing is left to do
    ready = start_workers(PoolSettings(out, count, reuse=True)) if count > 1 and anew else []
    _compare_and_show(out, count, ready, started)


def _compare_and_show(out: Path, count: int, ready: Sequence[Worker], started: float) -> None:
    # Imported here, while the worker processes import PyTorch too: a second or two of the whole.
    from simulations.commands.output import REPORT, rich_table, watching
    from simulations.formats import seconds
    from simulations.running.compare import compare
    from simulations.running.console import open_console
    from simulations.running.runs import read_records
    from simulations.tables.comparison import table_of
    from simulations.tables.variants import scenarios

    console = open_console()
    console.print("[bold]A small comparison of both worlds[/] on 8x8 digits\n", highlight=False)
    with watching(console) as watcher:
        compare(small_runs(), out / RESULTS, watcher, count, started=ready)
    records = list(read_records(out / RESULTS))
    for kind in ("distil", "federated", "continual"):
        for scenario in scenarios(records, kind):
            console.print(f"\n[bold cyan]{kind}[/]")
            console.print(rich_table(table_of(scenario)))

    from simulations.report import write_report  # matplotlib too takes a second

    page = write_report(out / RESULTS, out / REPORT)
    console.print(f"[bold green]done[/] in {seconds(time.monotonic() - started)}", highlight=False)
    console.print(f"[dim]results:[/] {out / RESULTS}", highlight=False, soft_wrap=True)
    console.print(f"[dim]report:[/]  {page}", highlight=False, soft_wrap=True)


def small_runs() -> list[Run]:
    """Both worlds on 8x8 digits in a minute of processor time; the longest first, so that processes end together."""
    from simulations.scenarios.distil import DistilSettings
    from simulations.settings import FederatedSettings
    from strategies.continual import ContinualSettings

    distil = DistilSettings(images_per_class=1, distil_steps=_DM_STEPS, architecture=_SMALL_NETWORK)
    federated = FederatedSettings(clients=4, partition="dirichlet:0.1", architecture=_SMALL_NETWORK)
    one_shot = replace(federated, strategy="one-shot", images_per_class=1)
    continual = ContinualSettings(experiences=5, images_per_class=1, architecture=_SMALL_NETWORK, epochs=10)
    return [
        Run("federated", replace(federated, strategy="fedavg", rounds=20, local_epochs=5)),
        Run(
            "continual",
            replace(continual, strategy="distilled", method="dm", method_settings=_QUICK_DM, distil_steps=_DM_STEPS),
        ),
        Run("distil", replace(distil, method="dm", method_settings=_QUICK_DM)),
        Run("federated", replace(one_shot, method="dm", method_settings=_QUICK_DM, distil_steps=_DM_STEPS)),
        Run("continual", replace(continual, strategy="naive")),
        Run("continual", replace(continual, strategy="reservoir")),
        Run("distil", replace(distil, method="herding")),
        Run("distil", replace(distil, method="random")),
        Run("federated", replace(one_shot, method="random")),
    ]
