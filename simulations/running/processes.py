"""Programs that were started for one purpose, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_STOP_SECONDS = 10.0


def thread_environment(threads: int) -> Mapping[str, str]:
    """Our environment with so many threads, and with this code found wherever the process starts."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), "PYTHONPATH": path}


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
