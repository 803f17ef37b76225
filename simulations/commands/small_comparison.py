"""``fedcl-distill`` without a subcommand: a small comparison of both worlds, and its report."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from simulations.running.pool import PoolSettings, Worker, start_workers
from simulations.running.runs import RESULTS

_MAX_WORKERS = 3


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
    from simulations.scenarios.small_comparison import RUNS
    from simulations.tables.comparison import table_of
    from simulations.tables.variants import scenarios

    console = open_console()
    console.print("[bold]A small comparison of both worlds[/] on 8x8 digits\n", highlight=False)
    with watching(console) as watcher:
        compare(RUNS, out / RESULTS, watcher, count, started=ready)
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
