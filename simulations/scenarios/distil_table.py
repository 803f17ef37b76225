"""Methods beside each other at one budget, every cell in a process of its own, and random samples of equal bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import ByteBudget, count_per_class
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.parameterizations import Pixels
from simulations.data import load_splits
from simulations.formats import number
from simulations.running.pool import Outcome, PoolSettings, run_in_processes
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Kind, Record, Run, append_record, make_record, read_records, settings_key
from simulations.scenarios.distil import DistilSettings

DEFAULT_SECONDS = 600.0
BASELINE = "random"


def with_budget(cells: Iterable[DistilSettings], seconds: float | None = None) -> list[DistilSettings]:
    """``cells`` without doubles, each with a budget, so that all cost the same.

    ``seconds`` go to every cell; without them, :data:`DEFAULT_SECONDS` to those that have neither steps nor seconds.
    """
    budgeted = (_with_seconds(cell, seconds) for cell in cells)
    sized = (cell if cell.byte_budget is None else replace(cell, images_per_class=1) for cell in budgeted)
    return list({cell.key: cell for cell in sized}.values())


def run_table(
    cells: Sequence[DistilSettings],
    results_path: str | os.PathLike[str],
    workers: PoolSettings,
    watcher: Watcher | None = None,
    *,
    retry_failed: bool = False,
) -> list[Record]:
    """Run those of ``cells`` that ``results_path`` does not hold yet, each in a fresh process; return the new records.

    Each result is appended as soon as it is there. A run that fails becomes a record of kind
    ``distil-failed``, whose metrics are ``error``, ``reason`` and ``during``, and stops nothing; it is tried again
    only with ``retry_failed``.
    """
    watcher, new = watcher or Silent(), []
    todo = _missing(cells, results_path, retry_failed)
    with (
        watcher.stage(f"{len(todo)} of {len(cells)} cells to do") as stage,
        closing(run_in_processes([Run(Kind.DISTIL, cell) for cell in todo], workers, stage)) as outcomes,
    ):
        for record in map(_record, outcomes):
            append_record(results_path, record)
            new.append(record)
            watcher.note(_in_one_line(record))
    return new


def baselines(cells: Sequence[DistilSettings], results_path: str | os.PathLike[str]) -> list[DistilSettings]:
    """Random selections that take as many bytes as the finished ``cells`` do, without doubles.

    Where the bytes hold equally many samples of every class, the baseline is the random cell of that number of images
    per class, which a table often has anyway.
    """
    payloads = {one["key"]: number(one["metrics"].get("payload_bytes")) for one in read_records(results_path)}
    train: dict[tuple[str, str | None, int | None], LabelledData] = {}
    found: dict[str, DistilSettings] = {}
    for cell in cells:
        payload = payloads.get(cell.key)
        if payload is None or cell.method == BASELINE:
            continue
        place = (cell.data, cell.data_root, cell.train_limit)
        if place not in train:
            train[place] = load_splits(cell.data, root=cell.data_root, train_limit=cell.train_limit).train
        baseline = _baseline(cell, int(payload), train[place])
        found.setdefault(baseline.key, baseline)
    return list(found.values())


def records_of_cells(cells: Sequence[DistilSettings], results_path: str | os.PathLike[str]) -> list[Record]:
    """For each cell its result or, where there is none, why: the latest record of either kind."""
    found = {record["key"]: record for record in read_records(results_path)}
    either = (found.get(cell.key) or found.get(_failed_key(cell)) for cell in cells)
    return [record for record in either if record is not None]


def _record(outcome: Outcome) -> Record:
    if outcome.record is not None:
        return outcome.record
    return make_record(Kind.DISTIL_FAILED, outcome.run.settings.as_record(), outcome.failure, outcome.seconds)


def _with_seconds(cell: DistilSettings, seconds: float | None) -> DistilSettings:
    if seconds is not None:
        return replace(cell, distil_seconds=seconds)
    return cell if cell.budget is not None else replace(cell, distil_seconds=DEFAULT_SECONDS)


def _missing(
    cells: Sequence[DistilSettings], results_path: str | os.PathLike[str], retry_failed: bool
) -> list[DistilSettings]:
    known = {record["key"] for record in read_records(results_path)}
    return [cell for cell in cells if cell.key not in known and (retry_failed or _failed_key(cell) not in known)]


def _failed_key(cell: DistilSettings) -> str:
    return settings_key(Kind.DISTIL_FAILED, cell.as_record())


def _baseline(cell: DistilSettings, payload: int, train: LabelledData) -> DistilSettings:
    counts = count_per_class(ByteBudget(payload, cell.bits), train, Pixels())
    random = replace(cell, method=BASELINE, method_settings={}, byte_budget=None)
    if len(set(counts)) == 1:
        return replace(random, images_per_class=counts[0])
    return replace(random, images_per_class=1, byte_budget=bytes_of_counts(counts, train, cell.bits))


def _in_one_line(record: Record) -> str:
    cell, metrics = DistilSettings(**record["settings"]), record["metrics"]
    if record["kind"] == Kind.DISTIL_FAILED:
        return f"{cell}: failed, {metrics['error']}: {metrics['reason']}"
    return f"{cell}: {100 * metrics['accuracy']:.1f} % · {metrics['distil_cpu_seconds']:.0f} CPU-s"
