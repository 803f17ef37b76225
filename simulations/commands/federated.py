"""``fedcl-distill federated``."""

from __future__ import annotations

import typer

from simulations.commands.shared import DEFAULT_OUT, RESULTS, Out, records_of, show_results, watching
from simulations.console import open_console
from simulations.federated import KIND, compare_federated
from simulations.options import takes_settings
from simulations.records import settings_key
from strategies.federated import FederatedSettings

app = typer.Typer(add_completion=False)


@app.command()
@takes_settings(FederatedSettings)
def federated(cells: list[FederatedSettings], out: Out = DEFAULT_OUT) -> None:
    """Run server and clients in this process and measure accuracy and every byte sent.

    Repeat a setting to compare, for instance: --method dm --method random --seed 0 --seed 1.
    Results that the folder already holds are not computed again.
    """
    console, results = open_console(), out / RESULTS
    with watching(console) as watcher:
        compare_federated(cells, results, watcher)
    keys = [settings_key(KIND, cell.as_record()) for cell in cells]
    show_results(console, records_of(results, keys), KIND, results)
