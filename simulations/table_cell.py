"""``python -m simulations.table_cell``: one run in a process of its own, so that its costs are the run's alone.

Settings come in on standard input as one JSON line. Progress goes out on standard output, a JSON line each, and at last
the result or why there is none. Whatever libraries print goes to standard error. The process ends when the one that
started it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

_LONGEST_TRACE = 3000  # characters
_SECONDS_BETWEEN_LINES = 0.5


def main() -> None:
    """Run the settings on standard input."""
    answers = _take_standard_output()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    speaker = _Speaker(answers)
    try:
        answer = {"record": _run(request, speaker)}
    except Exception as error:
        answer = {"failure": failure_of(error, speaker.phase)}
    speaker.say(answer)


def failure_of(error: BaseException, phase: str) -> dict[str, Any]:
    """Why a run has no result, as JSON values; what nobody foresaw comes with its traceback."""
    from fedcl_distill.errors import FedclDistillError

    failure = {"error": type(error).__name__, "reason": " ".join(str(error).split()), "during": phase}
    if not isinstance(error, FedclDistillError):
        failure["traceback"] = "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    return failure


def _run(request: Mapping[str, Any], speaker: _Speaker) -> Mapping[str, Any]:
    import torch

    from simulations.distil import DistilSettings, run_distil
    from simulations.machine import tune_allocator

    tune_allocator()
    torch.set_num_threads(request["threads"])
    return run_distil(DistilSettings(**request["settings"]), speaker, request["out"], checkpoints=False)


class _Speaker:
    """A watcher whose audience is another process."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._spoke = 0.0
        self.phase = "start"

    @contextmanager
    def stage(self, description: str) -> Iterator[_Speaker]:
        self.phase = description
        self._tell(0.0, "")
        yield self

    def update(self, fraction: float, detail: str = "") -> None:
        if time.monotonic() - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._tell(fraction, detail)

    def note(self, text: str) -> None:
        """The result says all of it."""

    def say(self, message: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def _tell(self, fraction: float, detail: str) -> None:
        self._spoke = time.monotonic()
        self.say({"phase": self.phase, "fraction": fraction, "detail": detail})


def _take_standard_output() -> TextIO:
    """The stream of answers; everything else that is printed goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _end_with_parent() -> None:
    """Standard input is closed when the other process ends, however it ends."""
    while os.read(0, 1):  # not sys.stdin, whose lock a normal end would wait for
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
