"""``python -m simulations.running.worker``: a process that does the runs it is given, one after the other.

Each comes in on standard input as one JSON line. Progress goes out on standard output, a JSON line each, and at last
the result or why there is none. Whatever libraries print goes to standard error. The process ends when the one that
started it does, and at SIGTERM, which a run that can leave a checkpoint takes as Ctrl-C.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

_LONGEST_TRACE = 3000  # characters
_SECONDS_BETWEEN_LINES = 0.5


def main() -> None:
    """Do the runs on standard input."""
    speaker, requests = _Speaker(_take_standard_output()), queue.SimpleQueue[bytes]()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    _import_early()
    while True:
        speaker.say(_answer(json.loads(requests.get()), speaker))


def failure_of(error: BaseException, phase: str) -> dict[str, Any]:
    """Why a run has no result, as JSON values; what nobody foresaw comes with its traceback."""
    from fedcl_distill.errors import FedclDistillError

    failure = {"error": type(error).__name__, "reason": " ".join(str(error).split()), "during": phase}
    if not isinstance(error, FedclDistillError):
        failure["traceback"] = "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    return failure


def _answer(request: Mapping[str, Any], speaker: _Speaker) -> dict[str, Any]:
    try:
        return {"record": _perform(request, speaker)}
    except Exception as error:
        return {"failure": failure_of(error, speaker.phase)}


def _import_early() -> None:
    """Import what every run needs, before the first is there; what is absent is the run's to tell."""
    with suppress(ImportError):
        import torch  # noqa: F401


def _perform(request: Mapping[str, Any], speaker: _Speaker) -> Mapping[str, Any]:
    import torch

    from simulations.costs import tune_allocator
    from simulations.running.progress import InsistentInterrupts
    from simulations.running.runs import perform_named

    tune_allocator()
    torch.set_num_threads(request["threads"])
    kind, settings, out = request["kind"], request["settings"], Path(request["out"])
    if not request["checkpoints"]:
        return perform_named(kind, settings, speaker, out, checkpoints=False)
    with InsistentInterrupts(speaker, signal.SIGTERM) as watcher:
        return perform_named(kind, settings, watcher, out)


class _Speaker:
    """A watcher whose audience is another process."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._spoke = 0.0
        self.phase = "start"

    @contextmanager
    def stage(self, description: str) -> Iterator[_Speaker]:
        outer, self.phase = self.phase, description
        self._tell(0.0)
        yield self
        self.phase = outer  # not where it failed: then it is the phase that did

    def update(self, fraction: float, detail: str = "") -> None:
        if time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._tell(fraction)

    def note(self, text: str) -> None:
        self.say({"note": text})

    def say(self, message: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def _tell(self, fraction: float) -> None:
        self._spoke = time.monotonic()
        self.say({"phase": self.phase, "fraction": fraction})


def _take_standard_output() -> TextIO:
    """The stream of answers; everything else that is printed goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    """Pass lines of standard input on. It is closed when the other process ends, however it ends; then we end too."""
    with open(0, "rb", buffering=0) as lines:  # not sys.stdin, whose lock a normal end would wait for
        for line in lines:
            requests.put(line)
    os._exit(1)


if __name__ == "__main__":
    main()
