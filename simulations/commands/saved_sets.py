"""``fedcl-distill cross-architecture``, ``judge`` and ``robustness``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedcl_distill.errors import SettingsError
from fedcl_distill.files import write_atomically
from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, Out, rich_table, say_where, watching
from simulations.running.console import open_console
from simulations.running.runs import RESULTS
from simulations.scenarios.judge import ForeignSettings, sets_to_judge
from simulations.scenarios.saved_sets import (
    ARCHITECTURES,
    CrossSettings,
    RobustnessSettings,
    compare_architectures,
    compare_robustness,
    find_sets,
    score_sets,
)
from simulations.tables.comparison import cross_tables, markdown_table, table_of_robustness

Sets = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Saved sets, or folders with results, whose sets are all taken; by default runs/.", show_default=False
    ),
]
WithScores = Annotated[bool, typer.Option("--scores", help="Also the label- and augmentation-robust scores (costly).")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the tables there too.", metavar="FILE.md")]


@takes_settings(CrossSettings, defaults={"architecture": ARCHITECTURES})
def cross_architecture(
    cells: list[CrossSettings],
    sets: Sets = None,
    out: Out = DEFAULT_OUT,
    scores: WithScores = False,
    markdown: Markdown = None,
) -> None:
    """Judge saved sets with several kinds of networks, and score them fairly whatever their labels and augmentation.

    Results that the folder already holds are not computed again.
    """
    console, results = open_console(), out / RESULTS
    paths = find_sets(sets or [out])
    with watching(console) as watcher:
        records = compare_architectures(paths, cells, results, watcher)
        if scores:
            records += score_sets(paths, cells, results, watcher)
    tables = cross_tables(records)
    for table in tables:
        console.print(rich_table(table))
    if markdown is not None:
        write_atomically(markdown, "\n".join(markdown_table(table) for table in tables).encode())
    say_where(console, "results", results)


@takes_settings(ForeignSettings)
def judge(
    cells: list[ForeignSettings],
    sets: Annotated[list[Path], typer.Argument(help="Files: sets of ours, or .pt files of other projects.")],
    out: Out = DEFAULT_OUT,
    protocol: Annotated[list[str] | None, typer.Option("--protocol", help="How networks are trained.")] = None,
    architecture: Annotated[list[str] | None, typer.Option("--architecture", help="Of the networks.")] = None,
    networks: Annotated[int | None, typer.Option("--networks", min=1, help="Of each architecture.")] = None,
) -> None:
    """Judge anybody's sets beside real samples of as many bytes: random, herded, compressed, labelled by a teacher.

    Reads the tensors that DC, DSA, DM, IDC, MTT, TESLA, DATM, NCFM and DD-Ranking publish. No code in a file runs.
    Results that the folder already holds are not computed again.
    """
    if len(cells) != 1:
        raise SettingsError(f"judge takes one value of each setting, got {len(cells)} combinations")
    (how,), console, results = cells, open_console(), out / RESULTS
    common: dict[str, Any] = {"networks": networks, "data": how.data, "data_root": how.data_root, "seed": how.seed}
    ways = [
        CrossSettings(architecture=one, protocol=by, **common)
        for by in protocol or ["fast"]
        for one in architecture or ["convnet:width=64"]
    ]
    with watching(console) as watcher:
        records = compare_architectures(sets_to_judge(sets, how, out, watcher), ways, results, watcher)
    for table in cross_tables(records):
        console.print(rich_table(table))
    say_where(console, "results", results)


@takes_settings(RobustnessSettings)
def robustness(cells: list[RobustnessSettings], sets: Sets = None, out: Out = DEFAULT_OUT) -> None:
    """Attack networks trained on saved sets by PGD, beside networks trained on real data: as accurate, and whole.

    Results that the folder already holds are not computed again.
    """
    console, results = open_console(), out / RESULTS
    with watching(console) as watcher:
        records = compare_robustness(find_sets(sets or [out]), cells, results, watcher)
    console.print(rich_table(table_of_robustness(records)))
    say_where(console, "results", results)
