"""Measures every side of every case, each in a fresh process, in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from simulations.bench.cases import CASES
from simulations.bench.workload import Workload
from simulations.running.fresh_process import in_fresh_process
from simulations.running.records import Record, append_record, make_record
from simulations.running.watch import Watcher

KIND = "bench"
_MEASURE = "simulations.bench.measure:measure"


def run_bench(
    work: Workload, cases: Sequence[str], rounds: int, results_path: str | os.PathLike[str], watcher: Watcher
) -> list[Record]:
    """Measure ``cases``, each ``rounds`` times with its sides in turns, and append each measurement as it is there.

    Sides take turns so that what else the machine does meanwhile meets all of them.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    turns = [(case, side) for case in cases for _ in range(rounds) for side in CASES[case]]
    records = []
    with watcher.stage(f"{len(turns)} measurements") as stage:
        for position, (case, side) in enumerate(turns):
            stage.update(position / len(turns), f"{case}, {side}")
            started = time.monotonic()
            request = {"case": case, "side": side, "work": asdict(work)}
            metrics = in_fresh_process(_MEASURE, request, work.threads)
            settings = {"case": case, "side": side, **work.as_record()}
            records.append(make_record(KIND, settings, metrics, time.monotonic() - started))
            append_record(results_path, records[-1])
    return records
