"""Profiles cases, each in a fresh process."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from simulations.bench.workload import Workload
from simulations.running.fresh_process import in_fresh_process
from simulations.running.records import Record, append_record, make_record
from simulations.running.watch import Watcher

KIND = "profile"
_MEASURE = "simulations.profile.measure:measure"


def run_profile(
    work: Workload, cases: Sequence[str], results_path: str | os.PathLike[str], watcher: Watcher
) -> list[Record]:
    """Profile ``cases`` and append the figures of each as soon as they are there.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    records = []
    with watcher.stage(f"{len(cases)} profiles") as stage:
        for position, case in enumerate(cases):
            stage.update(position / len(cases), case)
            started = time.monotonic()
            metrics = in_fresh_process(_MEASURE, {"case": case, "work": asdict(work)}, work.threads)
            settings = {"case": case, **work.as_record()}
            records.append(make_record(KIND, settings, metrics, time.monotonic() - started))
            append_record(results_path, records[-1])
    return records
