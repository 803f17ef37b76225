"""Truth: what is on the disk after failures made on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedcl_distill.errors import StorageError
from fedcl_distill.files import append_line, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result"
    write_atomically(target, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result"]


def test_a_full_device_gives_the_typed_error() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(StorageError, match="No space left"):
        append_line("/dev/full", "x")


def test_a_torn_line_is_closed_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append_line(log, "one")
    with open(log, "ab") as stream:
        stream.write(b'{"torn')
    append_line(log, "two")
    assert log.read_text() == 'one\n{"torn\ntwo\n'


def test_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        append_line(tmp_path / "log", "a\nb")


_APPEND_MANY = """
import sys
from fedcl_distill.files import append_line
for index in range(200):
    append_line(sys.argv[1], f"{sys.argv[2]}{index}".ljust(300, "."))
"""


def test_parallel_appends_lose_and_mix_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [subprocess.Popen([sys.executable, "-c", _APPEND_MANY, str(log), name]) for name in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    lines = [line.rstrip(".") for line in log.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name}{index}" for name in "ab" for index in range(200))
