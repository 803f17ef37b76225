"""Who is as accurate when: the library and a published loop, judged on their way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import evaluate, find_protocol
from fedcl_distill.methods import build_method
from fedcl_distill.settings import Count, Positive, settings
from fedcl_distill.synthetic import SyntheticSet
from simulations.data import load_splits
from simulations.dev.reference_loops import PlainDM, PlainDSA
from simulations.running.processes import answers, tune_allocator
from simulations.running.progress import Watcher
from simulations.running.runs import Record, append_record, finished_keys, make_record, read_records, settings_key
from simulations.settings import MethodName, ProtocolName, without_places
from simulations.tables.comparison import Table


@dataclass(frozen=True)
class Look:
    """A set on its way: CPU-seconds and steps that it took."""

    cpu_seconds: float
    steps: int
    synthetic: SyntheticSet


def looks(settings: Mapping[str, Any], plain: bool) -> Iterator[dict[str, Any]]:
    """Run the contestant, and judge each look; ``settings`` holds the fields of a :class:`TimeToAccuracySettings`."""
    race = TimeToAccuracySettings(**settings)
    if not plain:  # what the command line does for every run of the library
        tune_allocator()
    data = load_splits(race.data, root=race.data_root)
    for look in (plain_loop if plain else presets)(race, data):
        judged = evaluate(look.synthetic, data.test, find_protocol(race.protocol), seed=race.seed)
        yield {"cpu_seconds": look.cpu_seconds, "steps": look.steps, **judged.as_record()}


def presets(settings: TimeToAccuracySettings, data: Splits) -> Iterator[Look]:
    """A run of its own for every budget: schedules that end with the budget are part of what is measured."""
    for seconds in settings.budgets:
        method = build_method(settings.method, **settings.method_settings)
        before = time.process_time()
        budget = Budget(seconds=seconds, clock="cpu")
        synthetic = method.distil(data.train, settings.images_per_class, seed=settings.seed, budget=budget)
        yield Look(time.process_time() - before, int(synthetic.provenance["steps"]), synthetic)


def plain_loop(settings: TimeToAccuracySettings, data: Splits) -> Iterator[Look]:
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


KIND = "race"
_LOOKS = "simulations.dev.time_to_accuracy:looks"


@settings
class TimeToAccuracySettings:
    """Who races, and where.

    Attributes:
        data: name of the data set; images.
        data_root: folder to search first; a place on this computer, and no part of :meth:`as_record`.
        images_per_class: synthetic images of each class.
        method: the library's.
        method_settings: in place of its defaults.
        budgets: CPU-seconds of its runs.
        plain: the published loop: "dm" or "dsa".
        plain_width: of its networks.
        plain_looks: CPU-seconds after which its set is judged.
        protocol: by which sets are judged.
        seed: fixes both.

    Raises:
        SettingsError: on construction, if a name is unknown or times do not ascend.
    """

    data: str = "fashion-mnist"
    data_root: str | None = None
    images_per_class: Count = 10
    method: MethodName = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    budgets: Sequence[Positive] = (15.0, 30.0, 60.0, 120.0)
    plain: Literal["dm", "dsa"] = "dm"
    plain_width: Count = 128
    plain_looks: Sequence[Positive] = (60.0, 300.0, 900.0, 1800.0)
    protocol: ProtocolName = "quick"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("budgets", "plain_looks"):
            times = getattr(self, name)
            if not times or list(times) != sorted(set(times)):
                raise SettingsError(f"{name} must ascend, got {times}")

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the race: everything but places on this computer."""
        return without_places(asdict(self))


def run_time_to_accuracy(
    settings: TimeToAccuracySettings, results_path: str | os.PathLike[str], watcher: Watcher
) -> Record:
    """The race's record; one that ``results_path`` holds already is not run again.

    Its metrics are the looks at both contestants, each with ``cpu_seconds``, ``steps`` and what an evaluation tells.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    key, started = settings_key(KIND, settings.as_record()), time.monotonic()
    if key in finished_keys(results_path):
        return next(record for record in read_records(results_path) if record["key"] == key)
    with watcher.stage(f"race to the accuracy of the published loop ({settings.plain})") as stage:
        looks = len(settings.budgets) + len(settings.plain_looks)
        metrics: dict[str, Any] = {"library": [], "plain": []}
        for name, own in metrics.items():
            for look in _looks(settings, plain=name == "plain"):
                own.append(look)
                stage.update(sum(map(len, metrics.values())) / looks, f"{name}: {100 * look['accuracy']:.1f} %")
    record = make_record(KIND, settings.as_record(), metrics, time.monotonic() - started)
    append_record(results_path, record)
    return record


def _looks(settings: TimeToAccuracySettings, *, plain: bool) -> Iterator[dict[str, Any]]:
    yield from answers(_LOOKS, {"settings": asdict(settings), "plain": plain}, threads=1)


def seconds_to(accuracy: float, looks: Sequence[Mapping[str, Any]]) -> float | None:
    """CPU-seconds of the first look that is at least so accurate; None if none is."""
    return next((look["cpu_seconds"] for look in looks if look["accuracy"] >= accuracy), None)


def table_of_times(record: Record) -> Table:
    """A row for every look; the last column says how much sooner the library was as accurate."""
    settings, metrics = record["settings"], record["metrics"]
    rows = [_row(settings["method"], look, "") for look in metrics["library"]]
    for look in metrics["plain"]:
        sooner = seconds_to(look["accuracy"], metrics["library"])
        ratio = "not reached" if sooner is None else f"{look['cpu_seconds'] / sooner:.1f}"
        rows.append(_row(f"published loop ({settings['plain']}, width {settings['plain_width']})", look, ratio))
    ipc, protocol = settings["images_per_class"], settings["protocol"]
    title = f"{settings['data']} · {ipc} images a class · judged by protocol {protocol}"
    notes = (
        "Times as fast: CPU-seconds of the look over those of the library's first run that is at least as accurate.",
        "The library's runs are one for each budget; the published loop is one run that is looked at on its way.",
    )
    return Table(title, ("contestant", "CPU-seconds", "steps", "accuracy (%)", "times as fast"), tuple(rows), notes)


def _row(name: str, look: Mapping[str, Any], ratio: str) -> tuple[str, ...]:
    accuracy = f"{100 * look['accuracy']:.1f} ± {100 * look['accuracy_std']:.1f}"
    return name, f"{look['cpu_seconds']:.0f}", f"{look['steps']:,}", accuracy, ratio
