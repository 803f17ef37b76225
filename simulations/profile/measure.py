"""One case, measured in the process that does nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from torch.profiler import ProfilerActivity, profile

from fedcl_distill.data import Splits
from simulations.bench.cases import Side
from simulations.bench.measure import operations
from simulations.bench.workload import Ticker, Window, Workload
from simulations.measuring.machine import matrix_rate, tune_allocator
from simulations.profile.cases import CASES
from simulations.profile.groups import seconds_by_group
from simulations.profile.ranges import ranges


def measure(case: str, work: Mapping[str, Any]) -> dict[str, Any]:
    """Do the case three times and return its figures: by the clock, recorded by the profiler, and counted.

    Returns:
        ``cpu_seconds`` and ``seconds`` of each unit, without profiler; ``shares`` of each group in the recorded units,
        which add up to 1; ``operations`` of a unit in convolutions and matrix products; ``matrix_rate`` in GFLOP per
        CPU-second.
    """
    tune_allocator()
    workload = Workload(**work)
    side, data, ticker = CASES[case], workload.load(), Ticker()
    side(workload, data, ticker)
    return {
        "seconds": ticker.seconds,
        "cpu_seconds": ticker.cpu_seconds,
        "shares": shares(side, workload, data),
        "operations": operations(side, workload, data),
        "matrix_rate": matrix_rate(),
    }


def shares(side: Side, work: Workload, data: Splits) -> dict[str, float]:
    """The share of each group in the time of the units that ``side`` does, but for the first."""
    recording = _Recording()
    with ranges():
        side(work, data, Window(recording, work.repeats))
    spent = recording.seconds_by_group()
    whole = sum(spent.values())
    return {group: seconds / whole for group, seconds in spent.items()}


class _Recording(AbstractContextManager["_Recording"]):
    """The operators that run while it is open, and how long that was."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._seconds = 0.0

    def __enter__(self) -> _Recording:
        self._profile.__enter__()  # type: ignore[no-untyped-call]
        self._seconds = -time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds += time.perf_counter()
        self._profile.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def seconds_by_group(self) -> dict[str, float]:
        return seconds_by_group(self._profile.events() or (), self._seconds)  # type: ignore[no-untyped-call]
