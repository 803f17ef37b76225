"""A named piece of work in a process of its own, so that what it costs is its own.

The request comes in on standard input and the answer goes out as the last line of standard output, both JSON.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from fedcl_distill.errors import FedclDistillError
from simulations.processes import thread_environment

_MODULE = "simulations.fresh_process"  # not __name__, which a process that was started so calls __main__
_TAIL = 1500  # characters of what a process said before it broke


class ProcessError(FedclDistillError):
    """A process ended without an answer."""


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
    done = subprocess.run(
        [sys.executable, "-m", _MODULE],
        input=json.dumps({"work": work, "arguments": dict(arguments), "threads": threads}) + "\n",
        env=thread_environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProcessError(f"{work}: status {done.returncode}: {done.stderr[-_TAIL:].strip()}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Do what standard input asks for."""
    import torch

    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(request["threads"])
    module, _, function = request["work"].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(**request["arguments"])))


if __name__ == "__main__":
    main()
