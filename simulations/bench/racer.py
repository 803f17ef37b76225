"""``python -m simulations.bench.racer``: one contestant of a race, in a process of its own.

The request comes in on standard input. After each look at the set a JSON line goes out on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedcl_distill.data import Splits
    from fedcl_distill.synthetic import SyntheticSet
    from simulations.bench.race import RaceSettings


@dataclass(frozen=True)
class Look:
    """A set on its way: CPU-seconds and steps that it took."""

    cpu_seconds: float
    steps: int
    synthetic: SyntheticSet


def main() -> None:
    """Run the contestant that standard input names, and judge each look."""
    import torch

    from fedcl_distill.evaluation import PROTOCOLS, evaluate
    from simulations.bench.race import RaceSettings
    from simulations.machine import tune_allocator
    from simulations.scenario_data import load_splits

    request = json.loads(sys.stdin.readline())
    settings = RaceSettings(**request["settings"])
    torch.set_num_threads(1)
    if not request["plain"]:  # what the command line does for every run of the library
        tune_allocator()
    data = load_splits(settings.data, root=settings.data_root)
    contestant = plain_loop if request["plain"] else presets
    for look in contestant(settings, data):
        judged = evaluate(look.synthetic, data.test, PROTOCOLS[settings.protocol], seed=settings.seed)
        answer = {"cpu_seconds": look.cpu_seconds, "steps": look.steps, **judged.as_record()}
        print(json.dumps(answer), flush=True)


def presets(settings: RaceSettings, data: Splits) -> Iterator[Look]:
    """A run of its own for every budget: schedules that end with the budget are part of what is measured."""
    from fedcl_distill.engine import Budget
    from fedcl_distill.methods import build_method

    for seconds in settings.budgets:
        method = build_method(settings.method, **settings.method_settings)
        before = time.process_time()
        budget = Budget(seconds=seconds, clock="processor")
        synthetic = method.distil(data.train, settings.images_per_class, seed=settings.seed, budget=budget)
        yield Look(time.process_time() - before, int(synthetic.provenance["steps"]), synthetic)


def plain_loop(settings: RaceSettings, data: Splits) -> Iterator[Look]:
    """One run, looked at now and then; looking costs it nothing."""
    from simulations.plain.matching import PlainDM, PlainDSA

    kinds: dict[str, Any] = {"dm": PlainDM, "dsa": PlainDSA}
    loop = kinds[settings.plain](data.train, settings.images_per_class, width=settings.plain_width, seed=settings.seed)
    spent = 0.0
    for wanted in settings.plain_looks:
        while spent < wanted:
            before = time.process_time()
            loop.step()
            spent += time.process_time() - before
        yield Look(spent, loop.steps, loop.synthetic())


if __name__ == "__main__":
    main()
