"""Accuracy matrices of continual results: a row after each experience, a column for each experience's test data."""

from __future__ import annotations

from typing import Any

from simulations.tables.arms import Arm
from simulations.tables.formats import mean, numbers

Matrix = list[list[float]]


def matrices_of(arm: Arm) -> list[Matrix]:
    """The well-formed accuracy matrices of all runs; results come from files, which may hold anything."""
    return [matrix for matrix in (_matrix(record["metrics"].get("matrix")) for record in arm.records) if matrix]


def seen_so_far(matrix: Matrix) -> list[float]:
    """After each experience, the mean accuracy on those trained on by then."""
    return [mean(row[: stage + 1]) or 0.0 for stage, row in enumerate(matrix)]


def forgotten(matrix: Matrix) -> list[float]:
    """For each experience but the last: best earlier accuracy minus the final one."""
    last = len(matrix) - 1
    return [max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)]


def _matrix(value: Any) -> Matrix | None:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return None
    rows = [numbers(row) for row in value]
    regular = all(len(row) == len(value[0]) for row in value) and [len(r) for r in rows] == [len(r) for r in value]
    return rows if regular and (len(rows) in (1, len(rows[0]))) else None
