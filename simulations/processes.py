"""Programs that were started for one purpose, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

_STOP_SECONDS = 10.0


def stop_with_children(process: subprocess.Popen[bytes]) -> None:
    """End the process group that ``process`` leads, politely first; one that ended is left alone, with its number."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, request)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
