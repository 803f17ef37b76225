"""The measurements as one table: a row for every side, ratios to the published loop."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from simulations.bench.cases import PLAIN
from simulations.running.records import Record
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, byte_size

_COLUMNS = ("case", "side", "CPU-seconds", "times as fast", "of matrix product", "memory")
_NOTES = (
    "CPU-seconds: median over all measured units; in brackets the fastest and the slowest.",
    "Times as fast: the plain loop's median over this one's, of the same run.",
    "Of matrix product: convolutions and products of the plain loop's unit per CPU-second, as a fraction of what the "
    "same process reaches in a float32 matrix product of 1,024 × 1,024.",
    "Memory: peak of the process above interpreter and data.",
)


def table_of_bench(records: Sequence[Record]) -> Table:
    """One row for every side of every case, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["settings"]["case"], record["settings"]["side"]), []).append(record)
    rows = tuple(_row(case, side, group, groups.get((case, PLAIN), [])) for (case, side), group in groups.items())
    return Table(describe_work(records[0]["settings"]), _COLUMNS, rows, _NOTES)


def describe_work(work: Mapping[str, Any]) -> str:
    """The workload in a few words, given as a record's settings hold it."""
    return (
        f"{work['data']} · {work['images_per_class']} images a class, {work['real_batch_per_class']} real ones · "
        f"width {work['width']} · {work['threads']} threads"
    )


def _row(case: str, side: str, own: Sequence[Record], plain: Sequence[Record]) -> tuple[str, ...]:
    taken = _values(own, "cpu_seconds")
    median, of_plain = statistics.median(taken), statistics.median(_values(plain, "cpu_seconds") or [float("nan")])
    peaks = [one["metrics"]["peak_bytes"] for one in own if one["metrics"]["peak_bytes"] is not None]
    return (
        case,
        side,
        f"{median:.2f} ({min(taken):.2f}–{max(taken):.2f})",
        f"{of_plain / median:.2f}",
        _share(own, plain, median),
        byte_size(max(peaks)) if peaks else ABSENT,
    )


def _share(own: Sequence[Record], plain: Sequence[Record], seconds: float) -> str:
    operations = [one["metrics"]["operations"] for one in plain if one["metrics"]["operations"]]
    if not operations:
        return ABSENT
    rate = statistics.median(one["metrics"]["matrix_rate"] for one in own)
    return f"{100 * operations[0] / seconds / 1e9 / rate:.0f} %"


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records for value in record["metrics"][name]]
