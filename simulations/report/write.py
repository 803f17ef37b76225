"""From files of results to the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from fedcl_distill import __version__
from fedcl_distill.files import write_atomically
from simulations.report.overview import overview_blocks, summary
from simulations.report.sections import SECTIONS
from simulations.report.source import count_torn_lines, read_sources

_HERE = Path(__file__).parent


def write_report(results: Path | Sequence[Path], page: Path) -> Path:
    """Write the report about one or several files of results to ``page``, which needs no other file.

    Raises:
        StorageError: the page could not be written; an older one is untouched.
    """
    write_atomically(page, render([results] if isinstance(results, Path) else results).encode())
    return page


def render(results: Sequence[Path]) -> str:
    """The page as text. Everything that comes from results is escaped."""
    sources = read_sources(results)
    sections = [section for make in SECTIONS if (section := make(sources)) is not None]
    loader = jinja2.FileSystemLoader(_HERE)
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("page.html.j2").render(
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        markup=Markup,
        sections=sections,
        overview=overview_blocks(sources),
        summary=summary(sources, count_torn_lines(results)),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
