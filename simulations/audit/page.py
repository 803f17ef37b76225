"""Audits as files to read: tables in Markdown, curves as drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fedcl_distill.files import write_atomically
from simulations.audit.gradients import KIND as GRADIENTS
from simulations.audit.gradients import gradient_table
from simulations.audit.settings import KIND
from simulations.audit.tables import audit_tables
from simulations.report.drawing import standalone
from simulations.report.roc import drawing_of_curves
from simulations.running.records import Record
from simulations.tables.arms import scenarios
from simulations.tables.comparison import Table
from simulations.tables.markdown import markdown_table


def all_tables(records: Sequence[Record]) -> list[Table]:
    """Tables of audits and, where gradients were inverted, of what they show."""
    gradients = [record for record in records if record["kind"] == GRADIENTS]
    tables = audit_tables(records)
    return [*tables, gradient_table(gradients, records)] if gradients else tables


def markdown_page(records: Sequence[Record]) -> str:
    """All tables."""
    return "\n".join(markdown_table(table) for table in all_tables(records))


def write_drawings(records: Iterable[Record], folder: Path) -> list[Path]:
    """A file ``roc-N.svg`` for each task among ``records``; return their paths."""
    drawings = [drawing for scenario in scenarios(records, KIND) if (drawing := drawing_of_curves(scenario))]
    return [
        write_atomically(folder / f"roc-{number}.svg", standalone(drawing).encode())
        for number, drawing in enumerate(drawings, start=1)
    ]
