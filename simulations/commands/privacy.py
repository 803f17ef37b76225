"""``fedcl-distill privacy`` and ``audit``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fedcl_distill.errors import SettingsError, StorageError
from fedcl_distill.files import write_atomically
from simulations.audit.game import AuditSettings
from simulations.audit.run import GradientSettings, audit_saved, run_gradients, saved_record
from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, Out, WorkerCount, rich_table, say_where, watching
from simulations.report.drawing import drawing_of_curves, drawing_of_privacy, standalone
from simulations.running.compare import Failures, compare
from simulations.running.console import open_console
from simulations.running.progress import Watcher
from simulations.running.runs import (
    RESULTS,
    Kind,
    Record,
    Run,
    append_record,
    finished_keys,
    read_records,
    settings_key,
)
from simulations.scenarios.privacy import PrivacySettings
from simulations.scenarios.saved_sets import SavedSet
from simulations.tables.privacy import all_tables, markdown_page, privacy_table, privacy_tasks
from simulations.tables.variants import scenarios

With = Annotated[
    list[Path] | None,
    typer.Option("--with", help="Folders with results of other methods, to be shown beside these.", metavar="DIR"),
]
Drawing = Annotated[Path | None, typer.Option("--drawing", help="Also draw the curves.", metavar="FILE.svg")]


@takes_settings(PrivacySettings)
def privacy(cells: list[PrivacySettings], out: Out = DEFAULT_OUT, beside: With = None, drawing: Drawing = None) -> None:
    """Accuracy against ε: private statistics with more and more noise, from one pass over the data.

    Repeat a setting to compare, for instance: --epsilon 1 --epsilon 10 --epsilon 0 --nodes 1 --nodes 10; ε = 0 adds no
    noise. Results that the folder already holds are not computed again. ``--with`` shows results of ``distil`` (psg,
    or methods that claim nothing) and of ``federated --strategy statistics`` in the same tables and curves.
    """
    console, results, failures = open_console(), out / RESULTS, Failures()
    with watching(console) as watcher:
        compare([Run(Kind.PRIVACY, cell) for cell in cells], results, watcher, failures=failures)
    tasks = privacy_tasks(record for folder in (out, *(beside or [])) for record in read_records(folder / RESULTS))
    for task in tasks:
        console.print(rich_table(privacy_table(task)))
    if drawing is not None and tasks:
        write_atomically(drawing, standalone(drawing_of_privacy(tasks)).encode())
        say_where(console, "drawing", drawing)
    say_where(console, "results", results)
    failures.check()


_MAIN = (
    *("data", "candidates", "releases", "strategy", "federated", "method", "method_settings", "images_per_class"),
    *("distil_steps", "device", "seed"),
)
Sets = Annotated[
    list[Path] | None,
    typer.Argument(help="Saved sets to attack, in place of releases made for the audit.", show_default=False),
]
Members = Annotated[
    Path | None,
    typer.Option(
        "--members",
        metavar="FILE.txt",
        help="Of saved sets: positions of their real samples among the training data, one a line (default: all).",
    ),
]
TrainLimit = Annotated[
    int | None,
    typer.Option("--train-limit", min=1, help="Of saved sets: they were made from so many training samples."),
]
Gradients = Annotated[
    list[int] | None,
    typer.Option("--gradients", min=1, max=6, help="Also invert gradients of batches of so many samples."),
]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the tables there too.", metavar="FILE.md")]


@takes_settings(AuditSettings, main=_MAIN)
def audit(
    cells: list[AuditSettings],
    sets: Sets = None,
    out: Out = DEFAULT_OUT,
    workers: WorkerCount = 1,
    members: Members = None,
    train_limit: TrainLimit = None,
    gradients: Gradients = None,
    markdown: Markdown = None,
) -> None:
    """Attack what would be released: sets by any method, unions and models of any federated strategy, or saved sets.

    Repeat a setting to compare, for instance: --method dm --method random, or --strategy fedavg --federated rounds=10.
    Results that the folder already holds are not computed again; Ctrl-C keeps the releases that are done.
    """
    console, results, failures = open_console(), out / RESULTS, Failures()
    with watching(console) as watcher:
        if sets:
            keys = _audit_sets(sets, cells, members, train_limit, out, watcher)
        else:
            runs = [Run(Kind.AUDIT, cell) for cell in cells]
            compare(runs, results, watcher, workers, failures=failures)
            keys = [run.key for run in runs]
        keys += _invert_gradients(cells, gradients or [], out, watcher)
    wanted = set(keys)
    records = [record for record in read_records(results) if record["key"] in wanted]
    for table in all_tables(records):
        console.print(rich_table(table))
    if markdown is not None:
        write_atomically(markdown, markdown_page(records).encode())
    for drawing in _write_drawings(records, out / "audits"):
        say_where(console, "curves", drawing)
    say_where(console, "results", results)
    failures.check()


def _audit_sets(
    sets: Sequence[Path],
    cells: Sequence[AuditSettings],
    members: Path | None,
    train_limit: int | None,
    out: Path,
    watcher: Watcher,
) -> list[str]:
    """Attack saved sets that the results do not hold yet; return the keys of all."""
    positions, keys = None if members is None else _read_positions(members), []
    for path in sets:
        if not path.is_file():
            raise SettingsError(f"there is no set at {path}")
        saved = SavedSet.read(path)
        for cell in cells:
            keys.append(settings_key(Kind.AUDIT, saved_record(saved, cell, positions, train_limit)))
            if keys[-1] not in finished_keys(out / RESULTS):
                record = audit_saved(saved, cell, positions, train_limit=train_limit, watcher=watcher, out_dir=out)
                append_record(out / RESULTS, record)
    return keys


def _invert_gradients(cells: Sequence[AuditSettings], batches: Sequence[int], out: Path, watcher: Watcher) -> list[str]:
    """Invert gradients on each data set and seed of ``cells``, unless it is done; return the keys."""
    places = dict.fromkeys((cell.data, cell.data_root, cell.seed) for cell in cells)
    found = [
        GradientSettings(data=data, data_root=root, seed=seed, batch=batch)
        for data, root, seed in places
        for batch in batches
    ]
    keys = [settings_key(Kind.GRADIENTS, one.as_record()) for one in found]
    for key, one in zip(keys, found, strict=True):
        if key not in finished_keys(out / RESULTS):
            append_record(out / RESULTS, run_gradients(one, watcher, out))
    return keys


def _read_positions(file: Path) -> Tensor:
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"could not read members {file}: {error}") from error
    if not lines or not all(one.isdecimal() and len(one) < 19 for one in lines):
        raise SettingsError(f"{file} must hold whole numbers, one a line")
    return torch.tensor(sorted({int(one) for one in lines}))


def _write_drawings(records: Iterable[Record], folder: Path) -> list[Path]:
    """A file ``roc-N.svg`` for each task among ``records``; return their paths."""
    drawings = [drawing for scenario in scenarios(records, Kind.AUDIT) if (drawing := drawing_of_curves(scenario))]
    return [
        write_atomically(folder / f"roc-{number}.svg", standalone(drawing).encode())
        for number, drawing in enumerate(drawings, start=1)
    ]
