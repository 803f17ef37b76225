"""From files of results to the page, or to its drawings alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from fedcl_distill import __version__
from fedcl_distill.files import write_atomically
from simulations.report.blocks import Plot, Section
from simulations.report.drawing import standalone
from simulations.report.overview import overview_blocks, summary
from simulations.report.sections import SECTIONS
from simulations.report.source import Sourced, count_torn_lines, read_sources

_HERE = Path(__file__).parent


def write_report(results: Path | Sequence[Path], page: Path) -> Path:
    """Write the report about one or several files of results to ``page``, which needs no other file.

    Raises:
        StorageError: the page could not be written; an older one is untouched.
    """
    write_atomically(page, render([results] if isinstance(results, Path) else results).encode())
    return page


def write_drawings(results: Sequence[Path], folder: Path) -> list[Path]:
    """Write every plot of the page as an SVG file of its own, named by section, number of the chapter and title.

    Raises:
        StorageError: one could not be written.
    """
    written = []
    for name, svg in _drawings(_sections(read_sources(results))):
        write_atomically(folder / f"{name}.svg", standalone(svg).encode())
        written.append(folder / f"{name}.svg")
    return written


def render(results: Sequence[Path]) -> str:
    """The page as text. Everything that comes from results is escaped."""
    sources = read_sources(results)
    loader = jinja2.FileSystemLoader(_HERE)
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("page.html.j2").render(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        markup=Markup,
        sections=_sections(sources),
        overview=overview_blocks(sources),
        summary=summary(sources, count_torn_lines(results)),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _sections(sources: Sequence[Sourced]) -> list[Section]:
    return [section for make in SECTIONS if (section := make(sources)) is not None]


def _drawings(sections: Sequence[Section]) -> Iterator[tuple[str, str]]:
    """A name that suits files, and the markup, of each plot."""
    for section in sections:
        for number, chapter in enumerate(section.chapters, 1):
            for plot in (block for block in chapter.blocks if isinstance(block, Plot)):
                yield f"{section.anchor}-{number}-{re.sub('[^a-z0-9]+', '-', plot.title.lower())}", plot.svg
