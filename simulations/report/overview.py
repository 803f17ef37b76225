"""What was run, where and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulations.report.blocks import Block, Grid
from simulations.report.source import Sourced
from simulations.running.records import Record
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, number, plural, seconds


def overview_blocks(sources: Sequence[Sourced]) -> list[Block]:
    """A table of kinds of runs, and one of the machines they ran on."""
    records = [source.record for source in sources]
    return [Grid(_kinds(records)), Grid(_machines(records))] if records else []


def summary(sources: Sequence[Sourced], torn: int) -> str:
    """One line: how many results there are, and what could not be read."""
    parts = [plural(len(sources), "result")]
    if torn:
        parts.append(f"{plural(torn, 'line')} of the results could not be read")
    return " · ".join(parts)


def _kinds(records: list[Record]) -> Table:
    rows = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        chosen = [record for record in records if record["kind"] == kind]
        spent = [value for value in (number(record.get("seconds")) for record in chosen) if value is not None]
        rows.append(
            (
                str(kind),
                str(len(chosen)),
                _distinct(record["settings"].get("data") for record in chosen),
                _distinct(record["settings"].get("seed") for record in chosen),
                seconds(sum(spent)) if spent else ABSENT,
                _days(chosen),
            )
        )
    return Table("Runs", ("kind", "results", "data", "seeds", "time in all", "when (UTC)"), tuple(rows))


def _machines(records: list[Record]) -> Table:
    counted: dict[tuple[str, ...], int] = {}
    for record in records:
        machine = _machine(record.get("environment"))
        counted[machine] = counted.get(machine, 0) + 1
    columns = ("results", "processor", "cores", "threads", "accelerator", "Python", "versions")
    return Table("Machines and versions", columns, tuple((str(n), *machine) for machine, n in counted.items()))


def _machine(environment: Any) -> tuple[str, ...]:
    known = environment if isinstance(environment, dict) else {}
    versions = known.get("versions")
    listed = versions.items() if isinstance(versions, dict) else ()
    texts = [ABSENT if known.get(name) is None else str(known[name]) for name in ("processor", "cores", "threads")]
    accelerator = str(known.get("cuda") or "none")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(listed) if version is not None)
    return (*texts, accelerator, str(known.get("python") or ABSENT), packages or ABSENT)


def _days(records: list[Record]) -> str:
    times = sorted(str(record.get("time"))[:16].replace("T", " ") for record in records if record.get("time"))
    if not times:
        return ABSENT
    return times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or ABSENT
