"""``fedcl-distill federated`` and ``federated-continual``."""

from __future__ import annotations

from typing import Annotated

import typer

from simulations.attacks import AttackedSettings, list_attacks
from simulations.commands.options import takes_settings
from simulations.commands.output import (
    DEFAULT_OUT,
    Out,
    WorkerCount,
    check_names,
    records_of,
    rich_table,
    show_results,
    watching,
)
from simulations.running.compare import Failures, compare
from simulations.running.console import open_console
from simulations.running.runs import RESULTS, Kind, Record, Run
from simulations.scenarios.federated import choose_settings
from simulations.scenarios.federated import list_variants as federated_strategies
from simulations.scenarios.federated_continual import list_variants as federated_continual_strategies
from simulations.settings import FederatedContinualSettings
from simulations.tables.comparison import table_of
from simulations.tables.federated import table_of_attacks, table_of_bytes
from simulations.tables.variants import scenarios

Tune = Annotated[
    list[str] | None,
    typer.Option(
        "--tune",
        metavar="SETTING",
        help="A setting whose values are not compared but chosen from: each strategy runs with those that were best, "
        "at its first seed, on held-out training data (a fifth, or --validation-share). Repeatable.",
        show_default=False,
    ),
]

DEFAULT_STEPS = 200  # of every client: minutes in all on small images
_MAIN = (
    *("strategy", "strategy_settings", "rounds", "data", "clients", "partition", "method", "method_settings"),
    *("images_per_class", "distil_steps", "distil_seconds", "device", "seed"),
)
_MAIN_OF_BOTH = (*_MAIN, "stream", "scenario", "experiences", "memory_images_per_class")
_HELPS = {
    "strategy": f"One of {', '.join(federated_strategies())}.",
    "strategy_settings": "The strategy's own settings, such as mu=0.1; topk.fraction=0.1 is for topk.",
    "method": "Clients distil by this; see fedcl-distill methods.",
    "method_settings": "The method's own settings, such as init=noise; dm.clamp=true is for dm alone.",
    "attack": f"What attackers do: {', '.join(list_attacks())}.",
    "attack_settings": "The attacks' own settings, such as share=0.5; backdoor.target=3 is for backdoor.",
    "bits": "Of each sent value: 2, 4, 8, 16 or 32.",
}


@takes_settings(AttackedSettings, main=_MAIN, helps=_HELPS, steps=DEFAULT_STEPS)
def federated(
    cells: list[AttackedSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1, tune: Tune = None
) -> None:
    """Run server and clients in one process and measure accuracy and every byte sent.

    Repeat a setting to compare, for instance: --method dm --method random --seed 0 --seed 1.
    Results that the folder already holds are not computed again; an interrupted run goes on from its last round.
    """
    check_names("strategy", (cell.strategy for cell in cells), federated_strategies())
    console, results, choices, failures = open_console(), out / RESULTS, list[Record](), Failures()
    with watching(console) as watcher:
        if tune:
            cells, choices = choose_settings(cells, tune, results, watcher, workers)
        runs = [Run(Kind.FEDERATED, cell) for cell in cells]
        compare(runs, results, watcher, workers, failures=failures)
    records = records_of(results, runs)
    for scenario in scenarios(records, Kind.FEDERATED):
        for table in (table_of_bytes(scenario), table_of_attacks(scenario)):
            if table:
                console.print(rich_table(table))
    for scenario in scenarios(choices, Kind.FEDERATED_TUNING):
        console.print(rich_table(table_of(scenario)))
    show_results(console, records, Kind.FEDERATED, results)
    failures.check()


_FEDERATED_CONTINUAL_HELPS = {
    "strategy": f"One of {', '.join(federated_continual_strategies())}.",
    "strategy_settings": "The strategy's own settings, such as reserve=false; statistics.views=20 is for statistics.",
    "method": "Clients distil by this, the server its memory; see fedcl-distill methods.",
    "method_settings": "The method's own settings, such as init=noise; dm.clamp=true is for dm alone.",
    "bits": "Of each sent and remembered value: 2, 4, 8, 16 or 32.",
}


@takes_settings(FederatedContinualSettings, main=_MAIN_OF_BOTH, helps=_FEDERATED_CONTINUAL_HELPS, steps=DEFAULT_STEPS)
def federated_continual(
    cells: list[FederatedContinualSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1
) -> None:
    """Let clients live through streams of experiences and measure what the global model still knows of each.

    Repeat a setting to compare, for instance: --stream same --stream shuffled --strategy distilled --strategy fedavg.
    Results that the folder already holds are not computed again; a run that was ended goes on from its last stage.
    """
    check_names("strategy", (cell.strategy for cell in cells), federated_continual_strategies())
    console, results, runs = open_console(), out / RESULTS, [Run(Kind.FEDERATED_CONTINUAL, cell) for cell in cells]
    failures = Failures()
    with watching(console) as watcher:
        compare(runs, results, watcher, workers, failures=failures)
    show_results(console, records_of(results, runs), Kind.FEDERATED_CONTINUAL, results)
    failures.check()
