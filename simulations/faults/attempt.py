"""One call of a job in a copy of this process, which may be killed; and whoever outlives it is found."""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress
from pathlib import Path

import torch

from fedcl_distill.errors import FedclDistillError
from simulations.faults.jobs import Job

_MARK = "FEDCL_DISTILL_FAULTS"
_LOOK_SECONDS = 0.005
_MAX_SECONDS = 600.0
_LAST_WORDS = 2000  # characters


class JobError(FedclDistillError, RuntimeError):
    """A job that nobody killed did not come to its end."""


def attempt(job: Job, folder: Path, log: Path, kill_after: float = _MAX_SECONDS) -> float | None:
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
            raise JobError(f"{job.name} failed with status {status}: {log.read_text(errors='replace')[-_LAST_WORDS:]}")
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
