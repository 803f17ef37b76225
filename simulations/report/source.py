"""Results and the files beside them; whoever wrote the results shall not choose which files a report reads."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.running.records import Record, read_records

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PICTURE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Sourced:
    """A result and the folder that the paths in it start from."""

    record: Record
    folder: Path


def read_sources(files: Iterable[Path]) -> list[Sourced]:
    """All results of all files, in order."""
    return [Sourced(record, file.parent) for file in files for record in read_records(file)]


def count_torn_lines(files: Iterable[Path]) -> int:
    """Lines that are no result, such as the one that a crash tore."""
    return sum(_count_lines(file) - sum(1 for _ in read_records(file)) for file in files)


def picture_of(source: Sourced) -> tuple[str, int] | None:
    """The result's picture as a data URI and its width in pixels; None without one.

    Only a PNG file of moderate size below the folder of the results is read.
    """
    files = source.record["metrics"].get("files")
    name = files.get("picture") if isinstance(files, dict) else None
    path = _below(source.folder, name)
    if path is None or not path.is_file() or path.stat().st_size > _MAX_PICTURE_BYTES:
        return None
    content = path.read_bytes()
    if not content.startswith(_PNG_SIGNATURE) or len(content) < 24:
        return None
    (width,) = struct.unpack(">I", content[16:20])
    return "data:image/png;base64," + base64.b64encode(content).decode(), width


def _below(folder: Path, name: Any) -> Path | None:
    if not isinstance(name, str) or "\0" in name:
        return None
    root = folder.resolve()
    path = (root / name).resolve()
    return path if path.is_relative_to(root) else None


def _count_lines(file: Path) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())
