"""Runs in processes of their own, several at a time: what one costs or breaks is no affair of the others."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulations.distil import KIND, DistilSettings
from simulations.processes import stop_with_children, thread_environment
from simulations.records import Record, make_record
from simulations.watch import Stage

FAILED = f"{KIND}-failed"
"""Kind of a record that says why a run has no result: its metrics are ``error``, ``reason`` and ``during``."""

_MODULE = "simulations.table_cell"
_TAIL = 2000  # characters of what a process said before it broke
_SECONDS_BETWEEN_LOOKS = 1.0
_STOPPED_FOR_TIME = "timeout"


@dataclass(frozen=True)
class Workers:
    """How runs are spread over processes.

    Attributes:
        out: folder for sets and pictures.
        count: processes at a time.
        threads: of each process.
        longest_seconds: after which a process is ended and its run counts as failed; None lets it take its time.
    """

    out: Path
    count: int = 1
    threads: int = 1
    longest_seconds: float | None = None


def run_in_processes(cells: Sequence[DistilSettings], workers: Workers, stage: Stage) -> Generator[Record, None, None]:
    """Run every cell and yield its result, or a record of kind :data:`FAILED`, as soon as it is there.

    Whatever ends the iteration, such as Ctrl-C, ends the processes too: close the iterator.
    """
    waiting, running = deque(cells), list[_Cell]()
    selector = selectors.DefaultSelector()
    try:
        while waiting or running:
            while waiting and len(running) < workers.count:
                running.append(_Cell(waiting.popleft(), workers))
                selector.register(running[-1].output, selectors.EVENT_READ, running[-1])
            for key, _ in selector.select(_SECONDS_BETWEEN_LOOKS):
                key.data.listen()
            for cell in running:
                cell.stop_if_too_long(workers.longest_seconds)
            _show(stage, running, len(cells) - len(waiting) - len(running), len(cells))
            for cell in [one for one in running if one.ended]:
                selector.unregister(cell.output)
                running.remove(cell)
                yield cell.result()
    finally:
        for cell in running:
            cell.stop()
        selector.close()


class _Cell:
    """One run under way."""

    def __init__(self, settings: DistilSettings, workers: Workers) -> None:
        self.settings = settings
        self.fraction, self.phase, self.detail = 0.0, "start", ""
        self.ended = False
        self._answer: dict[str, Any] = {}
        self._rest = b""
        self._started = time.monotonic()
        self._stopped_for_time = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; see stop and result
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=thread_environment(workers.threads),
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.output = self._process.stdout
        with suppress(BrokenPipeError):  # it broke at once: result() says so
            self._process.stdin.write(_request(settings, workers).encode())
            self._process.stdin.flush()  # and stays open: its end tells the process that we are gone

    def listen(self) -> None:
        """Take in what the process said; at its end, ``ended`` becomes true."""
        received = os.read(self.output.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "phase" in message:
                self.phase, self.fraction, self.detail = message["phase"], message["fraction"], message["detail"]
            else:
                self._answer = message
        if not received:
            self._process.wait()
            self.ended = True

    def stop_if_too_long(self, seconds: float | None) -> None:
        if seconds is not None and not self._stopped_for_time and time.monotonic() - self._started > seconds:
            self._stopped_for_time = True
            stop_with_children(self._process)

    def stop(self) -> None:
        """End the process."""
        stop_with_children(self._process)
        self._close()

    def result(self) -> Record:
        """The result, or why there is none."""
        record: Record | None = self._answer.get("record")
        if record is None:
            failure = self._answer.get("failure") or self._sudden_end()
            record = make_record(FAILED, self.settings.as_record(), failure, time.monotonic() - self._started)
        self._close()
        return record

    def _sudden_end(self) -> dict[str, Any]:
        status = self._process.returncode
        if self._stopped_for_time:
            reason, error = "took longer than it was given", _STOPPED_FOR_TIME
        elif status < 0:
            name = signal.Signals(-status).name
            reason, error = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else ""), name
        else:
            reason, error = f"the process ended with status {status}", "exit"
        return {"error": error, "reason": reason, "during": self.phase, "traceback": self._last_words()}

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-_TAIL:]

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self.output.close()
        self._errors.close()


def _request(settings: DistilSettings, workers: Workers) -> str:
    return json.dumps({"settings": asdict(settings), "threads": workers.threads, "out": str(workers.out)}) + "\n"


def _show(stage: Stage, running: Sequence[_Cell], done: int, total: int) -> None:
    now = " | ".join(f"{one.phase} {100 * one.fraction:.0f} %" for one in running)
    stage.update(done / total, f"{done} of {total}; now {now}")
