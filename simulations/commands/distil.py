"""``fedcl-distill distil`` and ``distil-table``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcl_distill.files import write_atomically
from fedcl_distill.methods import list_methods
from simulations.commands.options import takes_settings
from simulations.commands.output import (
    DEFAULT_OUT,
    REPORT,
    Out,
    WorkerCount,
    records_of,
    rich_table,
    say_where,
    show_results,
    watching,
)
from simulations.running.compare import Failures, compare
from simulations.running.console import open_console
from simulations.running.pool import PoolSettings
from simulations.running.runs import RESULTS, Kind, Run
from simulations.scenarios.distil import (
    DEFAULT_SECONDS,
    DistilSettings,
    baselines,
    records_of_cells,
    run_table,
    with_budget,
)
from simulations.tables.comparison import without
from simulations.tables.distil import markdown_page, tables_of

DEFAULT_STEPS = 500  # minutes for DM on small images; the methods' own numbers, up to 20,000, take hours
ReportToo = Annotated[
    bool, typer.Option("--report", help="Also write the page that fedcl-distill report makes of the results.")
]
_MAIN = (
    *("data", "train_limit", "method", "method_settings", "images_per_class", "byte_budget"),
    *("distil_steps", "distil_seconds", "protocol", "device", "seed"),
)


@takes_settings(DistilSettings, main=_MAIN, steps=DEFAULT_STEPS)
def distil(
    cells: list[DistilSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1, report: ReportToo = False
) -> None:
    """Distil a data set, save what is to be sent, and judge exactly that on real test data.

    Repeat a setting to compare, for instance: --method dm --method herding --method random --seed 0 --seed 1.
    Results that the folder already holds are not computed again; Ctrl-C leaves a checkpoint to go on from.
    """
    console, results, runs = open_console(), out / RESULTS, [Run(Kind.DISTIL, cell) for cell in cells]
    failures = Failures()
    with watching(console) as watcher:
        compare(runs, results, watcher, workers, failures=failures)
    show_results(console, records_of(results, runs), Kind.DISTIL, results)
    say_where(console, "sets and pictures", out / "sets")
    if report and results.exists():
        from simulations.report import write_report  # matplotlib takes a second

        say_where(console, "report", write_report(results, out / REPORT))
    failures.check()


_DEFAULTS: dict[str, Sequence[Any]] = {"method": list_methods(), "data": ["fashion-mnist"], "images_per_class": [1, 10]}
_HELPS = {
    "distil_seconds": "Budget in seconds; --seconds goes first.",
    "distil_steps": "Budget in optimisation steps.",
}

Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", min=0, help=f"Budget of every cell (default: what the settings say, else {DEFAULT_SECONDS:g})."
    ),
]

Count = Annotated[int, typer.Option("--workers", min=1, help="Cells at a time, each in a process of its own.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each process.")]
Longest = Annotated[
    float | None,
    typer.Option(
        "--longest-seconds", help="End a cell, evaluation and all, that takes longer.", show_default=False, min=0
    ),
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", help="Write the tables to this file too.", metavar="FILE.md")
]
RandomToo = Annotated[
    bool, typer.Option("--random-at-equal-bytes", help="Also judge random real samples of each payload's size.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try cells again that failed in an earlier call.")]


@takes_settings(DistilSettings, main=_MAIN, helps=_HELPS, defaults=_DEFAULTS)
def distil_table(
    cells: list[DistilSettings],
    out: Out = DEFAULT_OUT,
    seconds: Seconds = None,
    workers: Count = 1,
    threads: Threads = 1,
    longest_seconds: Longest = None,
    markdown: Markdown = None,
    random_at_equal_bytes: RandomToo = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Compare all methods at one budget: accuracy beside published numbers, CPU-seconds, peak memory and bytes.

    Each cell (method, data set, size, seed) runs in a fresh process. What the folder already holds is not run again;
    a cell that fails becomes a line with the reason. Ctrl-C keeps what is done; the same command goes on from there.
    """
    console, results, wanted = open_console(), out / RESULTS, with_budget(cells, seconds)
    pool = PoolSettings(out, workers, threads, longest_seconds)
    with watching(console) as watcher:
        run_table(wanted, results, pool, watcher, retry_failed=retry_failed)
        if random_at_equal_bytes:
            beside = baselines(wanted, results)
            run_table(beside, results, pool, watcher, retry_failed=retry_failed)
            wanted = with_budget([*wanted, *beside])
    records = records_of_cells(wanted, results)
    for table in tables_of(records):
        console.print(rich_table(without(table, "family")))
    if markdown is not None:
        write_atomically(markdown, markdown_page(records).encode())
        say_where(console, "table", markdown)
    say_where(console, "results", results)
