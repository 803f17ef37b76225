"""The page: an overview, and a section for each scenario."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fedcl_distill import __version__
from fedcl_distill.files import write_atomically
from simulations.formats import ABSENT, number, plural, seconds
from simulations.report.blocks import Block, Grid, Plot, Section, Sourced, count_torn_lines, read_sources
from simulations.report.continual import continual_section, federated_continual_section
from simulations.report.drawing import standalone
from simulations.report.sections import audit_section, distil_section, federated_section, privacy_section
from simulations.running.runs import Record
from simulations.tables.comparison import Table

MakeSection = Callable[[Sequence[Sourced]], Section | None]

SECTIONS: tuple[MakeSection, ...] = (
    federated_section,
    continual_section,
    federated_continual_section,
    distil_section,
    privacy_section,
    audit_section,
)
"""In the order of the page."""


def overview_blocks(sources: Sequence[Sourced]) -> list[Block]:
    """A table of kinds of runs, and one of the machines they ran on."""
    records = [source.record for source in sources]
    return [Grid(_kinds(records)), Grid(_machines(records))] if records else []


def summary(sources: Sequence[Sourced], torn: int) -> str:
    """One line: how many results there are, and what could not be read."""
    parts = [plural(len(sources), "result")]
    if torn:
        parts.append(f"{plural(torn, 'line')} of the results could not be read")
    return " · ".join(parts)


def _kinds(records: list[Record]) -> Table:
    rows = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        chosen = [record for record in records if record["kind"] == kind]
        spent = [value for value in (number(record.get("seconds")) for record in chosen) if value is not None]
        rows.append(
            (
                str(kind),
                str(len(chosen)),
                _distinct(record["settings"].get("data") for record in chosen),
                _distinct(record["settings"].get("seed") for record in chosen),
                seconds(sum(spent)) if spent else ABSENT,
                _days(chosen),
            )
        )
    return Table("Runs", ("kind", "results", "data", "seeds", "time in all", "when (UTC)"), tuple(rows))


def _machines(records: list[Record]) -> Table:
    counted: dict[tuple[str, ...], int] = {}
    for record in records:
        machine = _machine(record.get("environment"))
        counted[machine] = counted.get(machine, 0) + 1
    columns = ("results", "processor", "cores", "threads", "accelerator", "Python", "versions")
    return Table("Machines and versions", columns, tuple((str(n), *machine) for machine, n in counted.items()))


def _machine(environment: Any) -> tuple[str, ...]:
    known = environment if isinstance(environment, dict) else {}
    versions = known.get("versions")
    listed = versions.items() if isinstance(versions, dict) else ()
    texts = [ABSENT if known.get(name) is None else str(known[name]) for name in ("processor", "cores", "threads")]
    accelerator = str(known.get("cuda") or "none")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(listed) if version is not None)
    return (*texts, accelerator, str(known.get("python") or ABSENT), packages or ABSENT)


def _days(records: list[Record]) -> str:
    times = sorted(str(record.get("time"))[:16].replace("T", " ") for record in records if record.get("time"))
    if not times:
        return ABSENT
    return times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or ABSENT


_HERE = Path(__file__).parent


def write_report(results: Path | Sequence[Path], page: Path) -> Path:
    """Write the report about one or several files of results to ``page``, which needs no other file.

    Raises:
        StorageError: the page could not be written; an older one is untouched.
    """
    write_atomically(page, render([results] if isinstance(results, Path) else results).encode(errors="replace"))
    return page


def write_drawings(results: Sequence[Path], folder: Path) -> list[Path]:
    """Write every plot of the page as an SVG file of its own, named by section, number of the chapter and title.

    Raises:
        StorageError: one could not be written.
    """
    written = []
    for name, svg in _drawings(_sections(read_sources(results))):
        write_atomically(folder / f"{name}.svg", standalone(svg).encode(errors="replace"))
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
        for place, chapter in enumerate(section.chapters, 1):
            for plot in (block for block in chapter.blocks if isinstance(block, Plot)):
                yield f"{section.anchor}-{place}-{re.sub('[^a-z0-9]+', '-', plot.title.lower())}", plot.svg
