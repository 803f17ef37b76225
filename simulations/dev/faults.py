"""``python -m simulations.dev.faults JOB… --kills N``: the status is 1 if anything was lost, doubled or left over.

A job is done once without a kill. Then it is begun anew, killed (SIGKILL, so that nothing can clean up behind itself)
after a random part of the time that it took, started again in the same folder, and so on until it comes to its end; its
folder must then hold what the first one holds. That is repeated until so many kills were dealt.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from fedcl_distill.errors import FedclDistillError, SettingsError
from fedcl_distill.synthetic import SyntheticSet, load
from simulations.cli import app
from simulations.report.blocks import count_torn_lines
from simulations.running.runs import RESULTS, append_record, finished_keys, make_record, read_records, settings_key

_MEASURED = re.compile("second|peak|start_bytes|cores|memory|rate|class_names")


def outcome_of(folder: Path) -> dict[str, Any]:
    """Each file by its path: results by key, sets as what they hold, others by the hash of their bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STARTS)
    return {str(path.relative_to(folder)): _content(path) for path in files}


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """What is not as expected, in words; None if nothing is."""
    missing, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = sorted(name for name in set(expected) & set(found) if expected[name] != found[name])
    parts = {"missing": missing, "left over": more, "different": other}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names) or None


def _content(path: Path) -> Any:
    if path.name == RESULTS:
        records = list(read_records(path))
        doubled = [key for key, count in Counter(record["key"] for record in records).items() if count > 1]
        return {record["key"]: _values(record["metrics"]) for record in records}, doubled
    if path.suffix == ".safetensors":
        return _digest(load(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(one: SyntheticSet) -> str:
    found = hashlib.sha256(repr((one.class_names, one.normalisation, one.parameterization)).encode())
    for tensor in (one.labels, *(one.arrays[name] for name in sorted(one.arrays))):
        found.update(torch.as_tensor(tensor).contiguous().numpy().data)
    return found.hexdigest()


def _values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _values(inner) for key, inner in value.items() if not _MEASURED.search(key)}
    return [_values(inner) for inner in value] if isinstance(value, list) else value


_NETWORK = "dm.architecture=convnet:width=8"
_STEPS = 60
_MAX_SECONDS = 300.0
_SERVER_NOTICES_SECONDS = 60.0
"""Flower's ServerApp sees by itself that its SuperLink is gone."""
STARTS = "starts.log"


@dataclass(frozen=True)
class Job:
    """A named piece of work.

    Attributes:
        name: on the command line.
        work: does it, or the rest of it, in a folder.
        loads: modules that all copies of a process have loaded, so that kills do not only hit imports.
        goodbye_seconds: within which all that it started must be gone after it was killed.
    """

    name: str
    work: Callable[[Path], None]
    loads: tuple[str, ...]
    goodbye_seconds: float = 10.0


def distil(folder: Path) -> None:
    """One distillation that writes a checkpoint after every step, and the step it started from into a log."""
    from fedcl_distill import Budget, build_method, load_data, save
    from fedcl_distill.engine import Callback, Checkpoints
    from fedcl_distill.engine.loop import Run
    from fedcl_distill.files import append_line

    class Starts(Callback):
        def on_start(self, run: Run) -> None:
            append_line(folder / STARTS, str(run.state.step))

    settings = {"steps": _STEPS}
    key = settings_key("distil", settings)
    if key in finished_keys(folder / RESULTS):
        return
    data, checkpoint = load_data("digits"), folder / "run.pt"
    synthetic = build_method("dm", architecture="convnet:width=8").distil(
        data.train,
        1,
        seed=0,
        budget=Budget(steps=_STEPS),
        checkpoint=checkpoint,
        callbacks=[Starts(), Checkpoints(checkpoint, every_seconds=0.0)],
    )
    save(synthetic, folder / "digits.safetensors")
    losses = {"final_loss": synthetic.provenance["final_loss"]}
    append_record(folder / RESULTS, make_record("distil", settings, losses, 0.0))


def deployment(folder: Path) -> None:
    """A run of Flower with three nodes over TLS. With this process everything ends: SuperLink, server and nodes."""
    from fedcl_distill.files import append_line
    from simulations.flower.under_flower import CHECKPOINT, run_deployed
    from simulations.settings import FederatedSettings

    settings = FederatedSettings(
        strategy="fedavg", clients=3, rounds=4, local_epochs=3, train_limit=300, architecture="convnet:width=4"
    )
    append_line(folder / STARTS, str(int((folder / CHECKPOINT).exists())))
    run_deployed(settings, timeout=_MAX_SECONDS, keep=folder)


def _command(*arguments: str) -> Callable[[Path], None]:
    """The same as ``fedcl-distill ARGUMENTS --out FOLDER``."""

    def work(folder: Path) -> None:
        status = app([*arguments, "--out", str(folder)], prog_name="fedcl-distill", standalone_mode=False)
        if status:  # a refusal, say; it was printed
            raise RuntimeError(f"fedcl-distill {arguments[0]} ended with status {status}")

    return work


_SMALL = ("--train-limit", "300", "--images-per-class", "1")
_METHODS = ("--method", "dm", "--method", "random")
_SEEDS = ("--seed", "0", "--seed", "1")
_JUDGES = ("--networks", "1", "--architecture", "convnet:width=4")
_DISTIL = (*_SMALL, *_JUDGES, "--distil-steps", "20", "--method-settings", _NETWORK, *_SEEDS)
_FEDERATED = (*_SMALL, "--architecture", "convnet:width=4", "--clients", "3", "--method", "random")
_TWO = ("--workers", "2")

_STREAM = ("--train-limit", "300", "--architecture", "mlp:width=16", "--epochs", "2", "--experiences", "5")
_DATA = ("fedcl_distill.methods", "sklearn.datasets")

JOBS = {
    job.name: job
    for job in (
        Job("distil", distil, (*_DATA, "simulations.running.runs")),
        Job("comparison", _command("distil", *_METHODS, *_DISTIL), (*_DATA, "simulations.commands.distil")),
        Job(
            "table",
            _command("distil-table", "--data", "digits", *_METHODS, *_TWO, *_DISTIL),
            (*_DATA, "simulations.commands.distil"),
        ),
        Job(
            "federated",
            _command("federated", "--strategy", "one-shot", "--strategy", "fedavg", *_FEDERATED),
            (*_DATA, "simulations.commands.federated"),
        ),
        Job(
            "workers",
            _command("federated", "--strategy", "one-shot", *_SEEDS, *_TWO, *_FEDERATED),
            (*_DATA, "simulations.commands.federated"),
        ),
        Job(
            "continual",
            _command("continual", "--strategy", "reservoir", "--strategy", "naive", *_STREAM),
            (*_DATA, "simulations.commands.continual", "strategies.continual.run"),
        ),
        Job("deployment", deployment, ("simulations.flower.under_flower",), _SERVER_NOTICES_SECONDS),
    )
}


_MARK = "FEDCL_DISTILL_FAULTS"
_LOOK_SECONDS = 0.005
_ATTEMPT_MAX_SECONDS = 600.0
_LOG_TAIL = 2000  # characters


class JobError(FedclDistillError, RuntimeError):
    """A job that nobody killed did not come to its end."""


def attempt(job: Job, folder: Path, log: Path, kill_after: float = _ATTEMPT_MAX_SECONDS) -> float | None:
    """Do ``job``: seconds that it took, or None where it was killed after ``kill_after`` of them.

    Raises:
        JobError: it failed by itself.
    """
    started, process = time.monotonic(), _start(job, folder, log)
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended and status == 0:
            return time.monotonic() - started
        if ended:
            raise JobError(f"{job.name} failed with status {status}: {log.read_text(errors='replace')[-_LOG_TAIL:]}")
        if time.monotonic() - started >= kill_after:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(_LOOK_SECONDS)


def outliving(folder: Path, seconds: float) -> list[int]:
    """Processes that a job in ``folder`` started and that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := _started_for(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _start(job: Job, folder: Path, log: Path) -> int:
    """The process id of a copy of this process that does ``job``, with whatever it prints in ``log``."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.environ[_MARK] = str(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        torch.set_num_threads(1)  # the threads of the original are not in its copy
        job.work(folder)
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _started_for(folder: Path) -> list[int]:
    """Processes that were started, at whatever distance, by a job in ``folder``: its mark is in their environment."""
    mark, found = f"{_MARK}={folder}\0".encode(), []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes() and _is_alive(entry):
                found.append(int(entry.name))
    return found


def _is_alive(entry: Path) -> bool:
    return entry.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"


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
    parser = argparse.ArgumentParser(prog="python -m simulations.dev.faults", description=__doc__)
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
