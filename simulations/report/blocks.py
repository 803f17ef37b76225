"""What a report consists of: sections of blocks. The template knows how each kind of block looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulations.tables.comparison import Table


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
