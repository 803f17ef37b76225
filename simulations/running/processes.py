"""Processes that were started for one purpose, end with it, and import nothing of where they are started."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from types import GeneratorType
from typing import Any

from fedcl_distill.errors import FedclDistillError

_ROOT = Path(__file__).parents[2]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STOP_SECONDS = 10.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_MAX_MMAP_THRESHOLD = 1 << 30
_NEVER_TRIM = 2**31 - 1


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules, whatever lies in the folder where the process starts.

    Without ``-P``, a file ``strategies.py`` or a folder ``simulations`` there would be imported in place of ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Our environment for a child: this code is found before anything else, wherever the process starts."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def thread_environment(threads: int) -> dict[str, str]:
    """:func:`child_environment` with so many threads."""
    return {**child_environment(), **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def tune_allocator() -> bool:
    """Let glibc keep large blocks instead of mapping and unmapping them; True if that took effect.

    By default glibc maps every large activation anew and gives it back a moment later, so that each training step
    pays for page faults on all of its memory. Keeping the blocks halves the time of a step of a ConvNet of width 128
    at batch size 256 on the CPU; the process holds on to its peak memory in return. Elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    trimmed = mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    return bool(mapped and trimmed)


def end_with_starter() -> None:
    """End this process once standard input is closed, as it is when whoever started us ends, however that happens."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def stop_with_children(*processes: subprocess.Popen[bytes]) -> None:
    """End the process groups that ``processes`` lead, politely first; what ended is left alone, with its number."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        running = [process for process in processes if process.poll() is None]
        for process in running:
            os.killpg(process.pid, request)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


_MODULE = "simulations.running.processes"  # not __name__, which a process that was started so calls __main__
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
            python_module(_MODULE),
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
