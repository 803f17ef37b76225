"""Profiles as one table: a row for every group, a column for every case."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from simulations.bench.table import describe_work
from simulations.profile.groups import GROUPS
from simulations.running.records import Record
from simulations.tables.comparison import Table

_NOTES = (
    "CPU-seconds of a unit: median, without the profiler. Groups: CPU-seconds and share of the recorded time.",
    "Outside operators: Python, Flower and Avalanche, and the profiler's own work, which is larger the smaller the "
    "operators are.",
    "GFLOP/s: operations in convolutions and matrix products per CPU-second; in brackets the share of what the "
    "same process reaches in a float32 matrix product of 1,024 × 1,024.",
)


def table_of_profile(records: Sequence[Record]) -> Table:
    """A row for every case that was profiled: what it takes, and what of it each group takes."""
    rows = (("CPU-seconds of a unit", *(f"{_seconds(one):.3g}" for one in records)),)
    groups = tuple((group, *(_share(one, group) for one in records)) for group in GROUPS)
    rates = (("GFLOP/s", *map(_rate, records)),)
    columns = ("group", *(str(one["settings"]["case"]) for one in records))
    return Table(describe_work(records[0]["settings"]), columns, (*rows, *groups, *rates), _NOTES)


def _share(record: Record, group: str) -> str:
    share = record["metrics"]["shares"][group]
    return f"{share * _seconds(record):.2g} ({100 * share:.0f} %)"


def _rate(record: Record) -> str:
    rate = record["metrics"]["operations"] / _seconds(record) / 1e9
    return f"{rate:.0f} ({100 * rate / record['metrics']['matrix_rate']:.0f} %)"


def _seconds(record: Record) -> float:
    return float(statistics.median(record["metrics"]["cpu_seconds"]))
