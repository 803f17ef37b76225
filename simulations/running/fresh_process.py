"""A named piece of work in a process of its own, so that what it costs is its own.

The request comes in on standard input and answers go out on standard output, a JSON line each.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import suppress
from types import GeneratorType
from typing import Any

from fedcl_distill.errors import FedclDistillError
from simulations.running.processes import end_with_starter, thread_environment

_MODULE = "simulations.running.fresh_process"  # not __name__, which a process that was started so calls __main__
_TAIL = 1500  # characters of what a process said before it broke


class ProcessError(FedclDistillError):
    """A process ended without the answers that were asked for."""


def in_fresh_process(work: str, arguments: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """What the function ``work`` answers to ``arguments`` in a new process of so many threads.

    Args:
        work: a function of this code, as ``package.module:function``; it takes the arguments and returns an answer,
            both of JSON values.
        arguments: by name.
        threads: of PyTorch and of the libraries below it.

    Raises:
        ProcessError: the process broke; the message ends with what it said.
    """
    *_, answer = answers(work, arguments, threads)
    return answer


def answers(work: str, arguments: Mapping[str, Any], threads: int) -> Generator[dict[str, Any], None, None]:
    """The same for a function that yields answers, each as soon as it is there. Closing it ends the process."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=thread_environment(threads),
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            request = json.dumps({"work": work, "arguments": dict(arguments), "threads": threads})
            with suppress(BrokenPipeError):  # it broke at once: its status says so
                process.stdin.write(request + "\n")
                process.stdin.flush()  # and stays open: its end tells the process that we are gone
            yield from map(json.loads, process.stdout)
            if process.wait():
                errors.seek(0)
                raise ProcessError(f"{work}: status {process.returncode}: {errors.read()[-_TAIL:].strip()}")
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()


def main() -> None:
    """Do what standard input asks for; whatever libraries print goes to standard error."""
    import torch

    out, sys.stdout = sys.stdout, sys.stderr
    request = json.loads(sys.stdin.readline())
    end_with_starter()
    torch.set_num_threads(request["threads"])
    module, _, function = request["work"].partition(":")
    answer = getattr(importlib.import_module(module), function)(**request["arguments"])
    for one in answer if isinstance(answer, GeneratorType) else (answer,):
        print(json.dumps(one), file=out, flush=True)


if __name__ == "__main__":
    main()
