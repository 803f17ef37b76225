"""One side of one case, measured in the process that does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedcl_distill.data import Splits
from simulations.bench.cases import CASES, PLAIN, Side
from simulations.bench.workload import Ticker, Window, Workload
from simulations.measuring.costs import Meter
from simulations.measuring.machine import matrix_rate, tune_allocator
from simulations.measuring.operations import OperationCounter


def measure(case: str, side: str, work: Mapping[str, Any]) -> dict[str, Any]:
    """Do the side of the case and return its figures; ``work`` holds the fields of a :class:`Workload`."""
    workload = Workload(**work)
    if side != PLAIN:  # what the command line does for every run of the library
        tune_allocator()
    do, data, ticker, meter = CASES[case][side], workload.load(), Ticker(), Meter()
    do(workload, data, ticker)
    cost = meter.cost()
    return {
        "operations": operations(do, workload, data) if side == PLAIN else None,
        "seconds": ticker.seconds,
        "cpu_seconds": ticker.cpu_seconds,
        "peak_bytes": cost.own_peak_bytes,
        "matrix_rate": matrix_rate(),
    }


def operations(side: Side, work: Workload, data: Splits) -> int:
    """Floating-point operations of one unit, in convolutions and matrix products."""
    counter = OperationCounter()
    side(replace(work, repeats=1), data, Window(counter, 1))
    return counter.total
