"""What a section of the page is made of."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.running.runs import Record, read_records
from simulations.tables.comparison import Table
from simulations.tables.variants import REPEATED, Scenario

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PICTURE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Sourced:
    """A result and the folder that the paths in it start from."""

    record: Record
    folder: Path


def read_sources(files: Iterable[Path]) -> list[Sourced]:
    """All results of all files, in order; broken characters in their texts are replaced, for nothing can draw them."""
    return [Sourced(_printable(record), file.parent) for file in files for record in read_records(file)]


def _printable(value: Any) -> Any:
    """``value`` of JSON, whose texts hold no lone surrogates."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value


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


@dataclass(frozen=True)
class Grid:
    """A :class:`~simulations.tables.comparison.Table` on the page."""

    table: Table
    kind: str = "table"


@dataclass(frozen=True)
class Plot:
    """A drawing: ``svg`` is trusted markup from our own plots, title and caption are plain text."""

    title: str
    svg: str
    caption: str = ""
    kind: str = "plot"


@dataclass(frozen=True)
class HeatCell:
    """One field of a heat map: its text, its background and the colour of its text as "#rrggbb"."""

    text: str
    background: str
    ink: str


@dataclass(frozen=True)
class HeatMap:
    """A matrix as coloured fields."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class HeatMaps:
    """Several heat maps side by side, with one scale and caption."""

    title: str
    maps: tuple[HeatMap, ...]
    row_axis: str
    column_axis: str
    caption: str = ""
    kind: str = "heatmaps"


@dataclass(frozen=True)
class Picture:
    """A picture made of large pixels: ``source`` is a data URI, ``width`` that of the file in pixels."""

    title: str
    source: str
    caption: str
    width: int


@dataclass(frozen=True)
class Pictures:
    """Several pictures side by side."""

    title: str
    pictures: tuple[Picture, ...]
    caption: str = ""
    kind: str = "pictures"


@dataclass(frozen=True)
class ClientReport:
    """Names and values, and a table, folded away until someone asks."""

    title: str
    facts: tuple[tuple[str, str], ...]
    table: Table | None = None
    kind: str = "facts"


Block = Grid | Plot | HeatMaps | Pictures | ClientReport


@dataclass(frozen=True)
class Chapter:
    """One scenario of a section: a heading and its blocks."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section:
    """One world of the report."""

    anchor: str
    title: str
    introduction: str
    chapters: Sequence[Chapter]


def spread_over(scenario: Scenario, what: str) -> str:
    """What the marks of a plot are, where variants have several runs (or seeds)."""
    count = scenario.seed_count
    return f"Mean of up to {count} {what}s, bars show the standard deviation." if count > 1 else f"One {what}."


def settings_facts(scenario: Scenario) -> ClientReport:
    """What all variants share, what reading did to the data, and a table of what variants differ in."""
    first = scenario.variants[0].settings
    shared = tuple((name, _show(value)) for name, value in first.items() if name not in scenario.varying)
    records = [record for variant in scenario.variants for record in variant.records]
    repeated = tuple(
        (f"{name}s", ", ".join(sorted({_show(record["settings"].get(name)) for record in records})))
        for name in REPEATED
        if any(name in record["settings"] for record in records)
    )
    rows = tuple(
        (variant.label, *(_show(variant.settings.get(name)) for name in scenario.varying))
        for variant in scenario.variants
    )
    differing = Table("Where variants differ", ("variant", *scenario.varying), rows) if scenario.varying else None
    notes = dict.fromkeys(note for record in records for note in record["metrics"].get("data_notes", ()))
    read = tuple((f"data as read, {number}", str(note)) for number, note in enumerate(notes, 1))
    return ClientReport("All settings", (*shared, *repeated, *read), differing)


def _show(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
