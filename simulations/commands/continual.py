"""``fedcl-distill continual``."""

from __future__ import annotations

from simulations.commands.options import takes_settings
from simulations.commands.output import DEFAULT_OUT, Out, WorkerCount, records_of, show_results, watching
from simulations.running.compare import Failures, compare
from simulations.running.console import open_console
from simulations.running.runs import RESULTS, Kind, Run
from strategies.continual import CONTINUAL_STRATEGIES, ContinualSettings

DEFAULT_STEPS = 200  # of every distillation: minutes in all on small images
_MAIN = (
    *("strategy", "strategy_settings", "data", "scenario", "experiences", "method", "method_settings"),
    *("images_per_class", "byte_budget", "distil_steps", "distil_seconds", "epochs", "device", "seed"),
)
_HELPS = {
    "strategy": f"One of {', '.join(one.name for one in CONTINUAL_STRATEGIES)}.",
    "strategy_settings": "Of the strategy, such as memory=distilled or der++.alpha=0.3 (for der++ alone).",
    "method": "Memories 'distilled', 'hybrid' and 'condensed' are made by this; see fedcl-distill methods.",
    "method_settings": "The method's own settings, such as init=noise; dm.clamp=true is for dm alone.",
    "bits": "Of each remembered value: 2, 4, 8, 16 or 32.",
}


@takes_settings(ContinualSettings, main=_MAIN, helps=_HELPS, steps=DEFAULT_STEPS)
def continual(cells: list[ContinualSettings], out: Out = DEFAULT_OUT, workers: WorkerCount = 1) -> None:
    """Train on one experience after the other and measure what is still known of each.

    Repeat a setting to compare, for instance: --strategy naive --strategy reservoir --strategy distilled.
    Results that the folder already holds are not computed again.
    """
    console, results, runs = open_console(), out / RESULTS, [Run(Kind.CONTINUAL, cell) for cell in cells]
    failures = Failures()
    with watching(console) as watcher:
        compare(runs, results, watcher, workers, failures=failures)
    show_results(console, records_of(results, runs), Kind.CONTINUAL, results)
    failures.check()
