"""Subcommands that only a checkout has: bench, time-to-accuracy, profile, scaling."""

from __future__ import annotations

from typing import Annotated

import typer

from fedcl_distill.errors import SettingsError
from fedcl_distill.files import write_atomically
from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, Out, rich_table, watching
from simulations.data import load_splits
from simulations.dev.bench import CASES, Workload, run_bench, table_of_bench
from simulations.dev.profile import CASES as PROFILE_CASES
from simulations.dev.profile import run_profile, table_of_profile
from simulations.dev.scaling import (
    ScalingSettings,
    drawing_of_scaling,
    laws,
    run_scaling,
    table_of_laws,
    table_of_scaling,
)
from simulations.dev.time_to_accuracy import TimeToAccuracySettings, run_time_to_accuracy, table_of_times
from simulations.running.console import open_console
from simulations.running.runs import RESULTS

Cases = Annotated[list[str] | None, typer.Option("--case", help=f"What to measure, repeatable: {', '.join(CASES)}.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often every side is measured, in turns.")]


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
        load_splits(work.data, root=work.data_root)  # what is wrong with the data is reported here, not by a child
        with watching(console) as watcher:
            records = run_bench(work, case or list(CASES), rounds, out / RESULTS, watcher)
        console.print(rich_table(table_of_bench(records)))


@takes_settings(TimeToAccuracySettings)
def time_to_accuracy(races: list[TimeToAccuracySettings], out: Out = DEFAULT_OUT) -> None:
    """Run the library and a published loop, judge both on their way, and tell who was as accurate when.

    Times are CPU-seconds of one thread. Judging is not counted.
    """
    console = open_console()
    for settings in races:
        load_splits(settings.data, root=settings.data_root)  # what is wrong is reported here, not by a child
        with watching(console) as watcher:
            record = run_time_to_accuracy(settings, out / RESULTS, watcher)
        console.print(rich_table(table_of_times(record)))


ProfileCases = Annotated[
    list[str] | None, typer.Option("--case", help=f"What to profile, repeatable: {', '.join(PROFILE_CASES)}.")
]
_COLUMNS = 3  # cases that a terminal has room for


@takes_settings(Workload)
def profile(works: list[Workload], out: Out = DEFAULT_OUT, case: ProfileCases = None) -> None:
    """Tell where the time goes, by groups of operators, and how it compares with the machine's matrix product.

    Every case runs in a fresh process, once by the clock, once under PyTorch's profiler and once to count operations.
    """
    unknown = sorted(set(case or []) - set(PROFILE_CASES))
    if unknown:
        raise SettingsError(f"unknown case {', '.join(unknown)}; known: {', '.join(PROFILE_CASES)}")
    console = open_console()
    for work in works:
        work.load()  # what is wrong with the data is reported here, not by a process
        with watching(console) as watcher:
            records = run_profile(work, case or list(PROFILE_CASES), out / RESULTS, watcher)
        for start in range(0, len(records), _COLUMNS):
            console.print(rich_table(table_of_profile(records[start : start + _COLUMNS])))


DRAWING = "scaling.svg"


@takes_settings(ScalingSettings)
def scaling(cells: list[ScalingSettings], out: Out = DEFAULT_OUT) -> None:
    """Measure how time and memory grow with each size of the problem, and fit a law to the seconds.

    Every measurement runs in a fresh process, on random images. What the folder already holds is not measured again.
    Writes the drawing scaling.svg beside the results.
    """
    console = open_console()
    for settings in cells:
        with watching(console) as watcher:
            records = run_scaling(list(settings.points()), out / RESULTS, watcher)
        console.print(rich_table(table_of_scaling(records)))
        console.print(rich_table(table_of_laws(laws(records))))
        drawing = drawing_of_scaling(records, [settings.middle(work) for work in settings.works])
        write_atomically(out / DRAWING, drawing.encode())
        console.print(f"[dim]drawing:[/] {out / DRAWING}", highlight=False, soft_wrap=True)
