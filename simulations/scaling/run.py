"""Measures all points, each in a fresh process; what is there already is not measured again."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from simulations.running.compare import compare
from simulations.running.fresh_process import in_fresh_process
from simulations.running.records import Record, make_record, read_records, settings_key
from simulations.running.runs import Run
from simulations.running.watch import Watcher
from simulations.scaling.settings import Point

KIND = "scaling"
_MEASURE = "simulations.scaling.measure:measure"


def run_scaling(points: Sequence[Point], results_path: str | os.PathLike[str], watcher: Watcher) -> list[Record]:
    """Measure what ``results_path`` does not hold yet, and return the measurements of all points, in their order.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    compare([Run(KIND, point) for point in points], results_path, watcher, perform=_measure)
    known = {record["key"]: record for record in read_records(results_path)}
    return [known[settings_key(KIND, point.as_record())] for point in points]


def _measure(run: Run, watcher: Watcher, folder: Path) -> Record:
    point, started = run.settings, time.monotonic()
    assert isinstance(point, Point)
    metrics = in_fresh_process(_MEASURE, point.as_record(), point.threads)
    return make_record(KIND, point.as_record(), metrics, time.monotonic() - started)
