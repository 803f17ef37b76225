"""``python -m simulations.faults JOB… --kills N``: the status is 1 if anything was lost, doubled or left over.

A job is done once without a kill. Then it is begun anew, killed after a random part of the time that it took, started
again in the same folder, and so on until it comes to its end; its folder must then hold what the first one holds. That
is repeated until so many kills were dealt.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fedcl_distill.errors import FedclDistillError, SettingsError
from simulations.faults.attempt import JobError, attempt, outliving
from simulations.faults.jobs import JOBS, STARTS, Job
from simulations.faults.outcome import difference, outcome_of
from simulations.report.source import count_torn_lines
from simulations.running.records import RESULTS, finished_keys


@dataclass
class Tally:
    """What happened to one job: kills, comparisons with the run left alone, resumed starts, and whatever was wrong.

    ``seconds`` and ``results`` are those of the run left alone.
    """

    job: str
    seconds: float = 0.0
    results: int = 0
    kills: int = 0
    compared: int = 0
    resumed: int = 0
    torn_lines: int = 0
    wrong: list[str] = field(default_factory=list)


def kill_often(job: Job, kills: int, seed: int, place: Path) -> Tally:
    """Kill ``job`` so many times, in folders below ``place``.

    Raises:
        JobError: it does not even come to its end where nobody kills it, or leaves no result that could be lost.
    """
    random, tally = Random(seed), Tally(job.name)
    alone, log = place / "alone", place / "log"
    alone.mkdir(parents=True)
    for module in job.loads:
        importlib.import_module(module)
    tally.seconds = attempt(job, alone, log) or 0.0
    expected, tally.results = outcome_of(alone), len(finished_keys(alone / RESULTS))
    if not tally.results:
        raise JobError(f"{job.name} left no result")
    while tally.kills < kills:
        folder = place / f"killed-{tally.compared}"
        folder.mkdir()
        try:
            while attempt(job, folder, log, random.uniform(0, tally.seconds)) is None:
                tally.kills += 1
                _mourn(folder, tally, job.goodbye_seconds)
                if tally.kills >= kills:
                    attempt(job, folder, log)
                    break
        except FedclDistillError as error:
            tally.wrong.append(f"{folder.name}: {error}")
            return tally
        tally.compared += 1
        if (other := difference(expected, outcome_of(folder))) is not None:
            tally.wrong.append(f"{folder.name}: {other}")
        tally.torn_lines += count_torn_lines([folder / RESULTS])
        tally.resumed += _resumed(folder / STARTS)
        if not tally.wrong:
            shutil.rmtree(folder)
    return tally


def _mourn(folder: Path, tally: Tally, seconds: float) -> None:
    """Wait until all that a killed job started is gone; who stays longer than ``seconds`` is noted and ended."""
    for process in outliving(folder, seconds):
        tally.wrong.append(f"{folder.name}: process {process} outlived the one that started it")
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _resumed(starts: Path) -> int:
    """How many starts went on from a step above 0."""
    return sum(step != "0" for step in starts.read_text().split()) if starts.exists() else 0


def _in_memory() -> Path | None:
    """A folder in memory, if there is one: SIGKILL takes nothing of what was written, on a disk or not."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def main(arguments: list[str]) -> int:
    """Kill what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulations.faults", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"default: all of {', '.join(JOBS)}")
    parser.add_argument("--kills", type=int, default=20, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=_in_memory(), help="where jobs work; in memory by default")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.jobs) - set(JOBS))
    if unknown:
        raise SettingsError(f"unknown job {', '.join(unknown)}; known: {', '.join(JOBS)}")
    tallies = []
    for name in given.jobs or JOBS:
        with tempfile.TemporaryDirectory(prefix="faults-", dir=given.folder) as folder:
            tallies.append(kill_often(JOBS[name], given.kills, given.seed, Path(folder)))
        print(json.dumps(vars(tallies[-1])), flush=True)
    return int(any(tally.wrong for tally in tallies))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FedclDistillError as error:
        sys.exit(str(error))
