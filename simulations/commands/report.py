"""``fedcl-distill report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedcl_distill.errors import SettingsError
from simulations.commands.output import DEFAULT_OUT, REPORT
from simulations.report import write_drawings, write_report
from simulations.running.runs import RESULTS

Results = Annotated[
    list[Path] | None,
    typer.Argument(help="Files of results, or folders that hold results.jsonl; by default runs/.", show_default=False),
]
To = Annotated[
    Path | None,
    typer.Option("--to", help="The page; by default report.html beside the first file.", metavar="FILE.html"),
]
Drawings = Annotated[
    Path | None,
    typer.Option("--drawings", help="Also write every plot into this folder, as SVG.", metavar="DIR"),
]


def report(results: Results = None, to: To = None, drawings: Drawings = None) -> None:
    """Write one self-contained HTML page about all results in the files."""
    files = [one / RESULTS if one.is_dir() else one for one in results or [DEFAULT_OUT / RESULTS]]
    absent = [str(one) for one in files if not one.exists()]
    if absent:
        raise SettingsError(f"no results at {', '.join(absent)}; run a simulation first")
    page = write_report(files, to or files[0].parent / REPORT)
    console = Console()
    console.print(f"[dim]report:[/] {page}", highlight=False, soft_wrap=True)
    for drawing in write_drawings(files, drawings) if drawings else ():
        console.print(f"[dim]drawing:[/] {drawing}", highlight=False, soft_wrap=True)
