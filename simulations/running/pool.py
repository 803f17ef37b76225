"""Runs in processes of their own, several at a time: what one costs or breaks is no affair of the others."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedcl_distill.errors import FedclDistillError
from simulations.running.processes import python_module, stop_with_children, thread_environment
from simulations.running.progress import Stage
from simulations.running.runs import Record, Run

_MODULE = "simulations.running.worker"
_TAIL = 2000  # characters of what a process said before it broke
_SECONDS_BETWEEN_LOOKS = 1.0
_STOPPED_FOR_TIME = "timeout"


class WorkerError(FedclDistillError, RuntimeError):
    """A process ended before its run did."""


@dataclass(frozen=True)
class PoolSettings:
    """How runs are spread over processes.

    Attributes:
        out: folder for sets and pictures.
        count: processes at a time.
        threads: of each process.
        longest_seconds: after which a process is ended and its run counts as failed; None lets it take its time.
        reuse: let a process take one run after the other, first those of a kind that it has loaded, and runs go on
            from checkpoints. Without, every run starts anew in a fresh process, so that its costs are its own.
    """

    out: Path
    count: int = 1
    threads: int = 1
    longest_seconds: float | None = None
    reuse: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: the run.
        seconds: that it took.
        record: its result, if there is one.
        failure: why there is none: ``error``, ``reason``, ``during`` and, of what nobody foresaw, ``traceback``.
        sudden: the process ended before it could say why.
    """

    run: Run
    seconds: float
    record: Record | None
    failure: Mapping[str, Any] = field(default_factory=dict)
    sudden: bool = False

    def error(self) -> Exception:
        """The failure to raise: one of our own errors as it was raised there."""
        name, reason = self.failure["error"], self.failure["reason"]
        if self.sudden:
            log_tail = self.failure["traceback"].strip().splitlines()[-1:]
            return WorkerError(": ".join([self.failure["during"], reason, *log_tail]))
        for known in _errors(FedclDistillError):
            if known.__name__ == name:
                return known(reason)
        unforeseen = RuntimeError(f"{name} in {self.failure['during']}: {reason}")
        unforeseen.add_note(self.failure.get("traceback", ""))
        return unforeseen


def start_workers(workers: PoolSettings) -> list[Worker]:
    """As many processes as ``workers`` has room for. They import PyTorch at once, while we do other things.

    They end with this process, if not before.
    """
    return [Worker(workers) for _ in range(workers.count)]


def run_in_processes(
    runs: Sequence[Run],
    workers: PoolSettings,
    stage: Stage,
    note: Callable[[str], None] = lambda _: None,
    started: Sequence[Worker] = (),
) -> Generator[Outcome, None, None]:
    """Do every run and yield how it ended as soon as it has; ``note`` hears what runs have to say.

    Whatever ends the iteration, such as Ctrl-C, ends the processes too, those ``started`` before included: close the
    iterator.
    """
    waiting, pool, done = list(runs), list(started), 0
    selector = selectors.DefaultSelector()
    try:
        for worker in pool:
            selector.register(worker.output, selectors.EVENT_READ, worker)
        while done < len(runs):
            for worker in _free_workers(pool, workers, len(waiting)):
                worker.take(waiting.pop(_next(waiting, worker.kinds)))
                if worker not in pool:
                    pool.append(worker)
                    selector.register(worker.output, selectors.EVENT_READ, worker)
            for key, _ in selector.select(_SECONDS_BETWEEN_LOOKS):
                key.data.listen(note)
            for worker in pool:
                worker.stop_if_too_long(workers.longest_seconds)
            _show(stage, pool, done, len(runs))
            for worker in [one for one in pool if one.finished]:
                outcome = worker.outcome()
                if worker.ended or not workers.reuse:
                    selector.unregister(worker.output)
                    pool.remove(worker)
                    _shut_down([worker])
                done += 1
                yield outcome
    finally:
        _shut_down(pool)
        selector.close()


class Worker:
    """One process and the run it has under way, if any."""

    def __init__(self, workers: PoolSettings) -> None:
        self.run: Run | None = None
        self.kinds: set[str] = set()
        self.ended = False
        self.fraction, self.phase = 0.0, "start"
        self._workers = workers
        self._answer: dict[str, Any] = {}
        self._rest = b""
        self._started = 0.0
        self._stopped_for_time = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; see close
        self.process = subprocess.Popen(
            python_module(_MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=thread_environment(workers.threads),
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self.output = self.process.stdin, self.process.stdout

    def take(self, run: Run) -> None:
        """Let the process do ``run``."""
        self.run, self._answer = run, {}
        self.kinds.add(run.kind)
        self.fraction, self.phase = 0.0, "start"
        self._started = time.monotonic()
        with suppress(BrokenPipeError):  # it broke at once: outcome() says so
            self._input.write(_request(run, self._workers).encode())
            self._input.flush()  # and stays open: its end tells the process that we are gone

    def listen(self, note: Callable[[str], None]) -> None:
        """Take in what the process said; at its end, ``ended`` becomes true."""
        received = os.read(self.output.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "phase" in message:
                self.phase, self.fraction = message["phase"], message["fraction"]
            elif "note" in message:
                note(message["note"])
            else:
                self._answer = message
        if not received:
            self.process.wait()
            self.ended = True

    @property
    def finished(self) -> bool:
        """Whether the run it has under way has ended."""
        return self.run is not None and (self.ended or bool(self._answer))

    def stop_if_too_long(self, seconds: float | None) -> None:
        if seconds is None or self.run is None or self._stopped_for_time:
            return
        if time.monotonic() - self._started > seconds:
            self._stopped_for_time = True
            stop_with_children(self.process)

    def outcome(self) -> Outcome:
        """How the run ended; the process is free for another one."""
        assert self.run is not None
        run, self.run = self.run, None
        answer = self._answer or {"failure": self._sudden_end()}
        seconds = time.monotonic() - self._started
        return Outcome(run, seconds, answer.get("record"), answer.get("failure", {}), sudden=not self._answer)

    def close(self) -> None:
        """Let go of a process that has ended."""
        with suppress(BrokenPipeError):
            self._input.close()
        self.output.close()
        self._errors.close()

    def _sudden_end(self) -> dict[str, Any]:
        status = self.process.returncode
        if self._stopped_for_time:
            reason, error = "took longer than it was given", _STOPPED_FOR_TIME
        elif status < 0:
            name = signal.Signals(-status).name
            reason, error = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else ""), name
        else:
            reason, error = f"the process ended with status {status}", "exit"
        return {"error": error, "reason": reason, "during": self.phase, "traceback": self._log_tail()}

    def _log_tail(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-_TAIL:]


def _free_workers(pool: Sequence[Worker], workers: PoolSettings, wanted: int) -> Iterator[Worker]:
    """At most ``wanted`` workers without a run: idle ones, then new ones."""
    idle = [worker for worker in pool if worker.run is None][:wanted]
    yield from idle
    for _ in range(min(wanted - len(idle), workers.count - len(pool))):
        yield Worker(workers)


def _next(waiting: Sequence[Run], kinds: set[str]) -> int:
    """Position of the first run of a kind that is loaded already, else 0."""
    return next((position for position, run in enumerate(waiting) if run.kind in kinds), 0)


def _shut_down(pool: Sequence[Worker]) -> None:
    stop_with_children(*(worker.process for worker in pool))
    for worker in pool:
        worker.close()


def _errors(base: type[FedclDistillError]) -> Iterator[type[FedclDistillError]]:
    yield base
    for below in base.__subclasses__():
        yield from _errors(below)


def _request(run: Run, workers: PoolSettings) -> str:
    request = {
        "kind": run.kind,
        "settings": asdict(run.settings),
        "threads": workers.threads,
        "out": str(workers.out),
        "checkpoints": workers.reuse,
    }
    return json.dumps(request) + "\n"


def _show(stage: Stage, pool: Sequence[Worker], done: int, total: int) -> None:
    now = " | ".join(f"{one.phase} {100 * one.fraction:.0f} %" for one in pool if one.run is not None)
    stage.update(done / total, f"{done} of {total}; now {now}")
