"""Measures every side of every case, each in a fresh process, in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fedcl_distill.errors import FedclDistillError
from simulations.bench.cases import CASES
from simulations.bench.workload import Workload
from simulations.processes import thread_environment
from simulations.records import Record, append_record, make_record
from simulations.watch import Watcher

KIND = "bench"
_MODULE = "simulations.bench.child"
_TAIL = 1500  # characters of what a process said before it broke


class BenchError(FedclDistillError):
    """A side could not be measured."""


def run_bench(
    work: Workload, cases: Sequence[str], rounds: int, results_path: str | os.PathLike[str], watcher: Watcher
) -> list[Record]:
    """Measure ``cases``, each ``rounds`` times with its sides in turns, and append each measurement as it is there.

    Sides take turns so that what else the machine does meanwhile meets all of them.

    Raises:
        BenchError: a process broke; the message ends with what it said.
    """
    turns = [(case, side) for case in cases for _ in range(rounds) for side in CASES[case]]
    records = []
    with watcher.stage(f"{len(turns)} measurements") as stage:
        for position, (case, side) in enumerate(turns):
            stage.update(position / len(turns), f"{case}, {side}")
            started = time.monotonic()
            metrics = _measure(work, case, side)
            settings = {"case": case, "side": side, **work.as_record()}
            records.append(make_record(KIND, settings, metrics, time.monotonic() - started))
            append_record(results_path, records[-1])
    return records


def _measure(work: Workload, case: str, side: str) -> dict[str, Any]:
    request = json.dumps({"case": case, "side": side, "work": asdict(work)})
    done = subprocess.run(
        [sys.executable, "-m", _MODULE],
        input=request + "\n",
        env=thread_environment(work.threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{case}, {side}: status {done.returncode}: {done.stderr[-_TAIL:].strip()}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
