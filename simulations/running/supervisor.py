"""``python -I supervisor.py PROGRAM OPTION…``: runs a foreign program, which ends with whoever started this.

The starter holds the other end of standard input and keeps it open. Once that is closed, as it is however the starter
ends, the whole process group is killed: this must be its leader. Nothing of ours is imported, so that it starts at once
and leaves the program's environment alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def kill_group_once_left_alone() -> None:
    """Kill this process and its group at the end of standard input."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run ``command`` without an input; its exit status, above 128 where a signal ended it."""
    # The group is asked to end as a whole. We stay until the program has, so that nobody takes it for ended before.
    # A function, for what is ignored would be ignored by the program as well.
    for request in (signal.SIGTERM, signal.SIGINT):
        signal.signal(request, lambda *_: None)
    threading.Thread(target=kill_group_once_left_alone, daemon=True).start()
    status = subprocess.Popen(command, stdin=subprocess.DEVNULL).wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
