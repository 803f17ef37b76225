"""The contestants of a race, each in a process that does nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget
from fedcl_distill.evaluation import evaluate, find_protocol
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import SyntheticSet
from simulations.bench.race import RaceSettings
from simulations.measuring.machine import tune_allocator
from simulations.plain.matching import PlainDM, PlainDSA
from simulations.scenarios.data import load_splits


@dataclass(frozen=True)
class Look:
    """A set on its way: CPU-seconds and steps that it took."""

    cpu_seconds: float
    steps: int
    synthetic: SyntheticSet


def looks(settings: Mapping[str, Any], plain: bool) -> Iterator[dict[str, Any]]:
    """Run the contestant, and judge each look; ``settings`` holds the fields of a :class:`RaceSettings`."""
    race = RaceSettings(**settings)
    if not plain:  # what the command line does for every run of the library
        tune_allocator()
    data = load_splits(race.data, root=race.data_root)
    for look in (plain_loop if plain else presets)(race, data):
        judged = evaluate(look.synthetic, data.test, find_protocol(race.protocol), seed=race.seed)
        yield {"cpu_seconds": look.cpu_seconds, "steps": look.steps, **judged.as_record()}


def presets(settings: RaceSettings, data: Splits) -> Iterator[Look]:
    """A run of its own for every budget: schedules that end with the budget are part of what is measured."""
    for seconds in settings.budgets:
        method = build_method(settings.method, **settings.method_settings)
        before = time.process_time()
        budget = Budget(seconds=seconds, clock="cpu")
        synthetic = method.distil(data.train, settings.images_per_class, seed=settings.seed, budget=budget)
        yield Look(time.process_time() - before, int(synthetic.provenance["steps"]), synthetic)


def plain_loop(settings: RaceSettings, data: Splits) -> Iterator[Look]:
    """One run, looked at now and then; looking costs it nothing."""
    kinds: dict[str, Any] = {"dm": PlainDM, "dsa": PlainDSA}
    loop = kinds[settings.plain](data.train, settings.images_per_class, width=settings.plain_width, seed=settings.seed)
    spent = 0.0
    for wanted in settings.plain_looks:
        while spent < wanted:
            before = time.process_time()
            loop.step()
            spent += time.process_time() - before
        yield Look(spent, loop.steps, loop.synthetic())
