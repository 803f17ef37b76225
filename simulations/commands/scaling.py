"""``fedcl-distill scaling``."""

from __future__ import annotations

import typer

from fedcl_distill.files import write_atomically
from simulations.commands.options import takes_settings
from simulations.commands.shared import DEFAULT_OUT, Out, rich_table, watching
from simulations.running.console import open_console
from simulations.running.records import RESULTS
from simulations.scaling.plot import drawing_of_scaling
from simulations.scaling.results import laws, table_of_laws, table_of_scaling
from simulations.scaling.run import run_scaling
from simulations.scaling.settings import ScalingSettings

app = typer.Typer(add_completion=False)

DRAWING = "scaling.svg"


@app.command("scaling")
@takes_settings(ScalingSettings)
def scaling(cells: list[ScalingSettings], out: Out = DEFAULT_OUT) -> None:
    """Measure how time and memory grow with each size of the problem, and fit a law to the seconds.

    Every measurement runs in a fresh process, on random images. What the folder already holds is not measured again.
    Writes the drawing scaling.svg beside the results.
    """
    console = open_console()
    for settings in cells:
        with watching(console) as watcher:
            records = run_scaling(list(settings.points()), out / RESULTS, watcher)
        console.print(rich_table(table_of_scaling(records)))
        console.print(rich_table(table_of_laws(laws(records))))
        drawing = drawing_of_scaling(records, [settings.middle(work) for work in settings.works])
        write_atomically(out / DRAWING, drawing.encode())
        console.print(f"[dim]drawing:[/] {out / DRAWING}", highlight=False, soft_wrap=True)
