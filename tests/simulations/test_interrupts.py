"""Ctrl-C: it gets through, and what is finished stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from simulations.running.progress import InsistentInterrupts, Silent
from simulations.running.runs import read_records

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends a signal")

_LONG_SECOND_RUN = [
    *("distil", "--train-limit", "200", "--images-per-class", "1", "--networks", "1", "--architecture", "mlp:width=8"),
    *("--method", "random", "--method", "dm", "--method-settings", "dm.architecture=convnet:width=8"),
    *("--distil-steps", "1000000"),
]


def test_an_interrupt_that_a_loop_swallowed_comes_again_with_the_next_progress():
    before = signal.getsignal(signal.SIGINT)
    with InsistentInterrupts(Silent()) as watcher, watcher.stage("one") as stage:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for report in (lambda: stage.update(0.5), lambda: watcher.note("done")):
            with pytest.raises(KeyboardInterrupt):
                report()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_keeps_what_is_finished_and_a_checkpoint_of_what_is_not(tmp_path):
    log = tmp_path / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "simulations", *_LONG_SECOND_RUN, "--out", str(tmp_path)]
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        deadline = time.monotonic() + 60
        while "  dm · digits" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        # CPython reports the signal itself if it struck inside code run by exec, though the command handled it.
        assert process.wait(timeout=60) in (130, -signal.SIGINT)
    assert "interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert [record["settings"]["method"] for record in read_records(tmp_path / "results.jsonl")] == ["random"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
