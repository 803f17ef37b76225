"""``fedcl-distill advise``."""

from __future__ import annotations

from collections.abc import Sequence

from fedcl_distill.errors import SettingsError
from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, REPORT, Out, WorkerCount, rich_table, say_where, watching
from simulations.formats import byte_size, plural, seconds
from simulations.report import write_report
from simulations.running.console import open_console
from simulations.running.runs import RESULTS
from simulations.scenarios.advise import HELD_OUT, AdviceSettings, Tried, advice, count_held_out, try_ways
from simulations.tables.comparison import Table
from simulations.tables.variants import REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE

_MAIN = ("data", "train_limit", "bytes", "rounds", "clients", "partition", "distil_seconds", "architecture", "seed")


@takes_settings(AdviceSettings, main=_MAIN)
def advise(cells: list[AdviceSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1) -> None:
    """Try every way to send your data in few bytes, on held-out training data, and recommend one.

    Random and herded real samples, the same in few bits, a distilled set, FedAvg in 8 bits, and, with --features, sums
    of a pretrained network's features; all data in one place is the ceiling. About ten minutes on two cores for 10,000
    small images. Results that the folder already holds are not computed again.
    """
    if len(cells) != 1:
        raise SettingsError(f"advise takes one value of each setting, got {len(cells)} combinations")
    (asked,), console, results = cells, open_console(), out / RESULTS
    with watching(console) as watcher:
        tried, failures = try_ways(asked, results, watcher, workers)
    held_out = count_held_out(asked)
    console.print(rich_table(table_of_ways(asked, tried, held_out)))
    console.print(f"\n[bold]{advice(tried, held_out, asked.bytes)}[/]\n", highlight=False)
    write_report(results, out / REPORT)
    say_where(console, "plots", out / REPORT)
    failures.check()


def table_of_ways(asked: AdviceSettings, tried: Sequence[Tried], held_out: int) -> Table:
    """The best first; the ceiling where its accuracy puts it."""
    rows = tuple(
        (
            one.way.label + (f" {REAL_SAMPLES_MARK}" if one.way.sends_real_samples else ""),
            f"{one.accuracy:.1%}",
            "–" if one.way.ceiling else byte_size(one.bytes_per_client),
            seconds(one.seconds),
        )
        for one in sorted(tried, key=lambda one: -one.accuracy)
    )
    notes = [
        f"Judged on {held_out:,} held-out training samples ({HELD_OUT:.0%}).",
        "FedAvg and the ceiling are at the best of three learning rates.",
    ]
    if any(one.way.sends_real_samples for one in tried):
        notes.append(REAL_SAMPLES_NOTE)
    title = f"{asked.data} · {plural(asked.clients, 'client')} · {byte_size(asked.bytes)} each"
    return Table(title, ("way", "accuracy", "bytes a client", "seconds"), rows, tuple(notes))
