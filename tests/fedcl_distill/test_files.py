"""Truth: what is on the disk after failures made on purpose."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fedcl_distill.errors import StorageError
from fedcl_distill.files import append_line, remove, write_atomically
from killing import killed_at_every_call


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


def test_a_write_killed_at_any_call_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    target, seen = tmp_path / "result", set()
    write_atomically(target, b"old")
    for _ in killed_at_every_call(lambda: write_atomically(target, b"new")):
        seen.add(target.read_bytes())
        assert set(os.listdir(tmp_path)) <= {"result", ".result.part"}
    assert seen == {b"old", b"new"}
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["result"]  # what killed writes left was used by the last one


def test_a_folder_is_synced_once_the_file_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    write_atomically(tmp_path / "result", b"new")
    assert synced == [str(tmp_path / ".result.part"), str(tmp_path)]
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "two")  # the folder knows the file by now
    assert synced[2:] == [str(tmp_path / "log"), str(tmp_path), str(tmp_path / "log")]


def test_appends_killed_at_any_call_lose_and_double_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def appends() -> None:
        for line in ("a", "b", "c"):
            if line not in _lines(log):  # as a comparison does: what is there is not done again
                append_line(log, line)

    for _ in killed_at_every_call(appends):
        assert len(set(_lines(log))) == len(_lines(log))
    assert sorted(_lines(log)) == ["a", "b", "c"]


def _lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def test_what_a_killed_write_left_goes_with_the_file(tmp_path: Path) -> None:
    target = tmp_path / "run.pt"
    write_atomically(target, b"x")
    (tmp_path / ".run.pt.part").write_bytes(b"half")
    remove(target)
    remove(target)
    assert os.listdir(tmp_path) == []


def test_a_link_at_the_other_name_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    (tmp_path / ".result.part").symlink_to(precious)
    with pytest.raises(StorageError):
        write_atomically(tmp_path / "result", b"new")
    assert precious.read_bytes() == b"keep me"


def _in_a_copy(work: Callable[[], object]) -> int:
    """Process id of a copy of this process that does ``work``."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_parallel_writers_mix_nothing(tmp_path: Path) -> None:
    target, contents = tmp_path / "result", {b"a" * 5000, b"b" * 5000}

    def write_many(content: bytes) -> None:
        for _ in range(30):
            write_atomically(target, content)

    write_many(b"a" * 5000)
    writers = [_in_a_copy(partial(write_many, content)) for content in contents]
    while writers:
        assert target.read_bytes() in contents
        writers = [one for one in writers if os.waitpid(one, os.WNOHANG) == (0, 0)]
    assert os.listdir(tmp_path) == ["result"]


def test_files_that_may_not_grow_give_the_typed_error_and_keep_what_was_there(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    target, log, said = tmp_path / "result", tmp_path / "log", tmp_path / "said"
    write_atomically(target, b"old")
    append_line(log, "one")

    def write_under_a_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for write in (partial(write_atomically, target, b"n" * 5000), partial(append_line, log, "n" * 5000)):
            with pytest.raises(StorageError, match="File too large"):
                write()
        said.write_text("both")

    os.waitpid(_in_a_copy(write_under_a_limit), 0)
    assert said.read_text() == "both"
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["log", "result", "said"]
    append_line(log, "two")
    lines = log.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("one", "two", 3)  # between them the torn one


@pytest.mark.parametrize("write", [lambda path: write_atomically(path, b"x"), lambda path: append_line(path, "x")])
def test_a_folder_that_cannot_be_written_gives_the_typed_error(tmp_path: Path, write: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        write(tmp_path / "file" / "below")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o555)
        with pytest.raises(StorageError, match="Permission denied"):
            write(tmp_path / "closed" / "below")
