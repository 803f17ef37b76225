"""Files where the system refuses what Windows refuses: renaming open files, opening folders, text mode by default."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fedcl_distill import checkpoint, files
from fedcl_distill.errors import StorageError
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import load, save

_BINARY = 1 << 30


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits: object) -> None:
    """No ``fcntl``, ``pread`` and ``fchmod``; files are text unless said; open files keep their name."""
    plain_open, plain_replace = os.open, os.replace

    def opened(path, flags, *more, **named):  # type: ignore[no-untyped-def]
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        assert flags & _BINARY or tmp_path not in Path(path).parents, "a file of bytes was opened as text"
        return plain_open(path, flags & ~_BINARY, *more, **named)

    def replaced(source, target):  # type: ignore[no-untyped-def]
        held = {os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")}
        if {os.path.realpath(source), os.path.realpath(target)} & held:
            raise PermissionError(32, "The process cannot access the file because it is being used", str(source))
        plain_replace(source, target)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "fchmod")
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(files, "_BYTES", _BINARY)
    monkeypatch.setattr(files, "_NO_LINK", 0)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked up in /proc")


@pytest.mark.usefixtures("windows")
def test_files_are_written_appended_to_and_removed(tmp_path: Path) -> None:
    target = tmp_path / "some [1].bin"
    files.write_atomically(target, b"old\n")
    files.write_atomically(target, b"\r\nnew\n", secret=True)
    assert target.read_bytes() == b"\r\nnew\n"
    files.append_line(target, "one")
    target.write_bytes(target.read_bytes() + b"torn")
    files.append_line(target, "two")
    assert target.read_bytes() == b"\r\nnew\none\ntorn\ntwo\n"
    with files.locked(tmp_path / "lock"):
        pass
    (tmp_path / ".some [1].bin.77-ab.part").write_bytes(b"of a killed write")
    files.remove(target)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.usefixtures("windows")
def test_sets_and_checkpoints_are_saved(tmp_path: Path, digits) -> None:  # type: ignore[no-untyped-def]
    synthetic = build_method("random").distil(digits.train, 1, seed=0)
    save(synthetic, tmp_path / "set.safetensors")
    save(synthetic, tmp_path / "set.safetensors")
    assert load(tmp_path / "set.safetensors").samples().equal(synthetic.samples())
    checkpoint.save_checkpoint(tmp_path / "state.pt", "name", {"step": 3})
    assert checkpoint.load_checkpoint(tmp_path / "state.pt", "name") == {"step": 3}


@pytest.mark.usefixtures("windows")
def test_a_file_that_stays_open_elsewhere_gives_the_typed_error_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "read.bin"
    target.write_bytes(b"old")
    with target.open("rb"), pytest.raises(StorageError, match=r"read\.bin"):
        files.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["read.bin"]


def test_a_tilde_is_home_for_whatever_is_written_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    synthetic = build_method("random").distil(digits.train, 1, seed=0)
    save(synthetic, "~/sets/one.safetensors")
    assert len(load("~/sets/one.safetensors")) == 10
    files.append_line("~/lines.txt", "one")
    checkpoint.save_checkpoint("~/state.pt", "name", {"step": 3})
    assert checkpoint.load_checkpoint("~/state.pt", "name") == {"step": 3}
    files.remove("~/state.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "sets"]
