"""``fedcl-distill audit``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fedcl_distill.errors import SettingsError, StorageError
from fedcl_distill.files import write_atomically
from simulations.audit.gradients import KIND as GRADIENTS
from simulations.audit.gradients import GradientSettings, run_gradients
from simulations.audit.page import all_tables, markdown_page, write_drawings
from simulations.audit.run import audit_saved, saved_record
from simulations.audit.settings import KIND, AuditSettings
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, WorkerCount, rich_table, watching
from simulations.running.compare import compare
from simulations.running.console import open_console
from simulations.running.failures import Failures
from simulations.running.records import RESULTS, append_record, finished_keys, read_records, settings_key
from simulations.running.runs import Run
from simulations.running.watch import Watcher
from simulations.scenarios.cross_architecture import SavedSet

app = typer.Typer(add_completion=False)

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


@app.command()
@takes_settings(AuditSettings)
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
            runs = [Run(KIND, cell) for cell in cells]
            compare(runs, results, watcher, workers, failures=failures)
            keys = [run.key for run in runs]
        keys += _invert_gradients(cells, gradients or [], out, watcher)
    wanted = set(keys)
    records = [record for record in read_records(results) if record["key"] in wanted]
    for table in all_tables(records):
        console.print(rich_table(table))
    if markdown is not None:
        write_atomically(markdown, markdown_page(records).encode())
    for drawing in write_drawings(records, out / "audits"):
        console.print(f"[dim]curves:[/] {drawing}", highlight=False, soft_wrap=True)
    console.print(f"[dim]results:[/] {results}", highlight=False, soft_wrap=True)
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
            keys.append(settings_key(KIND, saved_record(saved, cell, positions, train_limit)))
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
    keys = [settings_key(GRADIENTS, one.as_record()) for one in found]
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
