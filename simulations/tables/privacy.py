"""Accuracy against epsilon."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulations.formats import ABSENT, number, percent
from simulations.running.runs import Record
from simulations.tables.comparison import Table, distil_accuracies
from simulations.tables.variants import PRIVACY, REAL_SAMPLES_MARK, Variant, holds_real_samples, scenarios

NO_NOISE = math.inf
_METHODS = ("private-statistics", "psg")
_STATISTICS = "statistics"
_ONE_PLACE = "private-statistics, one place"
_NOTE = (
    "∞: the same without noise, which guarantees nothing. Mean and standard deviation over all networks of all seeds. "
    "Methods below claim nothing at all."
)


@dataclass
class Task:
    """All that was tried on one data set, with so many images a class.

    Attributes:
        data: its name.
        images_per_class: synthetic ones.
        curves: accuracies in [0, 1] by ε, for each way to spend it.
        references: accuracies of methods that claim nothing, by label.
    """

    data: str
    images_per_class: int
    curves: dict[str, dict[float, list[float]]] = field(default_factory=dict)
    references: dict[str, list[float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The task in a few words."""
        return f"{self.data}, {self.images_per_class} images per class"


def epsilons_of(tasks: Iterable[Task]) -> list[float]:
    """All ε of all curves, ascending; no noise last."""
    return sorted({epsilon for task in tasks for curve in task.curves.values() for epsilon in curve})


def privacy_tasks(records: Iterable[Record]) -> list[Task]:
    """Tasks with a curve, in the order of their first result.

    What has noise from a known seed, and so guarantees nothing, is on no curve.
    """
    found: dict[tuple[str, int], Task] = {}
    records = list(records)
    kinds = (("privacy", _add_released), ("distil", _add_distilled), ("federated", _add_federated))
    for kind, add in kinds:
        for variant in (variant for scenario in scenarios(records, kind) for variant in scenario.variants):
            data, size = variant.settings.get("data"), variant.settings.get("images_per_class")
            if isinstance(data, str) and type(size) is int and variant.settings.get("byte_budget") is None:
                add(found.setdefault((data, size), Task(data, size)), variant)
    for task in found.values():
        _share_what_has_no_noise(task)
    return [task for task in found.values() if any(set(curve) - {NO_NOISE} for curve in task.curves.values())]


def privacy_table(task: Task) -> Table:
    """A row for each curve, a column for each ε; then the methods that claim nothing."""
    epsilons = epsilons_of([task])
    rows = [(label, *(percent(curve.get(one, [])) for one in epsilons)) for label, curve in task.curves.items()]
    blank = (ABSENT,) * (len(epsilons) - 1)
    rows += [(label, *blank, percent(values)) for label, values in task.references.items()]
    columns = ("accuracy (%) at ε =", *(show_epsilon(one) for one in epsilons))
    return Table(f"Accuracy against ε · {task.title}", columns, tuple(rows), (_NOTE,))


def show_epsilon(epsilon: float) -> str:
    """As in "4" or "∞"."""
    return "∞" if epsilon == NO_NOISE else f"{epsilon:g}"


def _add_released(task: Task, variant: Variant) -> None:
    nodes = variant.settings.get("nodes")
    if (epsilon := _epsilon(variant.records, variant.settings)) is not None:
        noise = "no noise" if epsilon == NO_NOISE else "noise at each"
        _add(task, _ONE_PLACE if nodes == 1 else f"{nodes} clients, {noise}", epsilon, distil_accuracies(variant))


def _add_distilled(task: Task, variant: Variant) -> None:
    method, accuracies = str(variant.settings.get("method")), distil_accuracies(variant)
    if not accuracies:
        return
    if method not in _METHODS:
        label = method + (REAL_SAMPLES_MARK if holds_real_samples(method) else "")
        task.references.setdefault(label, []).extend(accuracies)
    elif (epsilon := _epsilon(variant.records, variant.settings.get("method_settings"))) is not None:
        _add(task, _ONE_PLACE if method == _METHODS[0] else f"{method}, one place", epsilon, accuracies)


def _add_federated(task: Task, variant: Variant) -> None:
    own = variant.settings.get("strategy_settings")
    if variant.settings.get("strategy") != _STATISTICS or not isinstance(own, dict) or "epsilon" not in own:
        return
    if (epsilon := _epsilon(variant.records, own)) is not None:
        _add(
            task,
            _label(variant, None if epsilon == NO_NOISE else own.get("trust")),
            epsilon,
            variant.values("accuracy"),
        )


def _label(variant: Variant, trust: Any) -> str:
    noise = {None: "no noise", "server": "noise at the server"}.get(trust, "noise at each")
    return f"{variant.settings.get('clients')} clients, {noise}"


def _add(task: Task, label: str, epsilon: float, accuracies: list[float]) -> None:
    task.curves.setdefault(label, {}).setdefault(epsilon, []).extend(accuracies)


def _epsilon(records: Sequence[Record], own: Any) -> float | None:
    """What all results guarantee; infinite where no noise was asked for; None where it cannot be told."""
    claims = [record["metrics"].get(PRIVACY) for record in records]
    if all(isinstance(one, dict) and one.get("seeded") is False for one in claims):
        known = [number(one.get("epsilon")) for one in claims]
        return None if None in known else max(one for one in known if one is not None)
    asked = own.get("epsilon", 1.0) if isinstance(own, dict) else 1.0
    return NO_NOISE if not asked and not any(claims) else None


def _share_what_has_no_noise(task: Task) -> None:
    """Without noise it is the same whoever would have added it: the end of both federated curves."""
    for label in [label for label in task.curves if label.endswith(", no noise")]:
        clients, _, _ = label.partition(",")
        others = [other for other in task.curves if other.startswith(f"{clients}, noise")]
        for other in others:
            task.curves[other].setdefault(NO_NOISE, []).extend(task.curves[label][NO_NOISE])
        if others:
            del task.curves[label]
