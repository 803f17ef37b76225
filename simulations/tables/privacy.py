"""Tables of accuracy against privacy, and of audits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from simulations.formats import ABSENT, mean, number, numbers, percent, plural
from simulations.running.runs import Kind, Record
from simulations.tables.comparison import Table, describe, distil_accuracies, markdown_table
from simulations.tables.variants import (
    PRIVACY,
    REAL_SAMPLES_MARK,
    REAL_SAMPLES_NOTE,
    Scenario,
    Variant,
    holds_real_samples,
    scenarios,
)

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


ATTACKS = (
    "loss",
    "loss, by class",
    "LiRA",
    "LiRA offline",
    "nearest pixels",
    "pixels, relative",
    "nearest features",
    "LiRA on pixels",
)
"""Names of the attacks, in the order of tables: first those on models, then those on samples."""

_GRADIENTS_NOTE = (
    "Median peak signal-to-noise ratio. A gradient: of FedAvg's first step on so few samples, inverted (Geiping et al. "
    "2020). A set: of the released sample nearest to a member, or to a candidate that was none."
)
_GAME = (
    "Each candidate is a member by a fair coin. Means over releases, each attacked with the others as shadows, and "
    "over seeds; in brackets the means of the intervals (DeLong; Clopper and Pearson), at 95 % by default."
)
_BOUND = (
    "ε ≥: lower bound from the first release (Steinke et al. 2023), all attacks together at the stated confidence, for "
    "the claimed δ (1e-5 by default), and for pure differential privacy. A claimed ε below it would be refuted; a "
    "bound of 0 proves nothing. Near copies: released samples closer to a member than 99 % of held-out samples are; of "
    "others: the same search among candidates that were no members."
)


def audit_tables(records: Iterable[Record]) -> list[Table]:
    """For each task: what was found in short, areas under the curve, finds at one false alarm in a hundred."""
    found = []
    for scenario in scenarios(records, Kind.AUDIT):
        found += [
            _overview(scenario),
            _by_attack(scenario, "auc", "area under the curve", 1, 3),
            _by_attack(scenario, "tpr_at_0.01", "members found (%) at 1 % false alarms", 100, 1),
            _by_attack(scenario, "tpr_at_0.001", "members found (%) at 0.1 % false alarms", 100, 1),
        ]
    return [table for table in found if len(table.columns) > 1]


def attacks_of(variants: Iterable[Variant]) -> list[str]:
    """Names of attacks: those on models first."""
    found = {name for variant in variants for record in variant.records for name in _attacks(record)}
    return [*(name for name in ATTACKS if name in found), *sorted(found - set(ATTACKS))]


def _overview(scenario: Scenario) -> Table:
    columns = (
        "release",
        "accuracy (%)",
        "largest AUC",
        "most found at 1 %",
        "ε ≥",
        "at δ = 0",
        "claimed ε",
        "near copies",
        "of others",
        "PSNR members / others (dB)",
    )
    rows = tuple(_overview_row(variant) for variant in scenario.variants)
    notes = [_BOUND]
    if any(variant.label.endswith(REAL_SAMPLES_MARK) for variant in scenario.variants):
        notes.append(REAL_SAMPLES_NOTE)
    return Table(f"Audit · {describe(scenario)}", columns, rows, tuple(notes))


def _overview_row(variant: Variant) -> tuple[str, ...]:
    metrics = [record["metrics"] for record in variant.records]
    areas = {name: _value(variant, name, "auc") for name in attacks_of([variant])}
    finds = {name: _value(variant, name, "tpr_at_0.01") for name in areas}
    claims = {number((one.get("claimed") or {}).get("epsilon")) for one in metrics} - {None}
    decibels = [_show([number(one.get(name)) for one in metrics], 1) for name in ("psnr_of_members", "psnr_of_others")]
    return (
        variant.label,
        _show([number(one.get("accuracy")) for one in metrics], 1, 100),
        _largest(areas, 1, 3),
        _largest(finds, 100, 1),
        _show([number(one.get("epsilon_bound")) for one in metrics], 2),
        _show([number(one.get("pure_epsilon_bound")) for one in metrics], 2),
        ", ".join(f"{one:g}" for one in sorted(filter(None, claims))) or ABSENT,
        _copies(metrics, "near_copies"),
        _copies(metrics, "near_copies_of_others"),
        ABSENT if ABSENT in decibels else " / ".join(decibels),
    )


def _by_attack(scenario: Scenario, metric: str, what: str, scale: float, digits: int) -> Table:
    variants = scenario.variants
    names = [
        name for name in attacks_of(variants) if any(_value(variant, name, metric) is not None for variant in variants)
    ]
    rows = tuple(
        (variant.label, *(_interval(variant, name, metric, scale, digits) for name in names)) for variant in variants
    )
    return Table(f"Membership inference, {what} · {describe(scenario)}", ("release", *names), rows, (_GAME,))


def _attacks(record: Record) -> dict[str, Any]:
    found = record["metrics"].get("attacks")
    return found if isinstance(found, dict) else {}


def _estimates(variant: Variant, name: str, metric: str, part: str) -> list[float]:
    found = [(_attacks(record).get(name) or {}).get(metric) or {} for record in variant.records]
    return [value for one in found if (value := number(one.get(part))) is not None]


def _value(variant: Variant, name: str, metric: str) -> float | None:
    return mean(_estimates(variant, name, metric, "value"))


def _interval(variant: Variant, name: str, metric: str, scale: float, digits: int) -> str:
    parts = [mean(_estimates(variant, name, metric, part)) for part in ("value", "low", "high")]
    if any(part is None for part in parts):
        return ABSENT
    value, low, high = (f"{scale * (part or 0.0):.{digits}f}" for part in parts)
    return f"{value} ({low}–{high})"


def _largest(values: dict[str, float | None], scale: float, digits: int) -> str:
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return ABSENT
    best = max(known, key=lambda name: known[name])
    return f"{scale * known[best]:.{digits}f} {best}"


def _show(values: Sequence[float | None], digits: int, scale: float = 1.0) -> str:
    middle = mean([value for value in values if value is not None])
    return ABSENT if middle is None else f"{scale * middle:.{digits}f}"


def _copies(metrics: Sequence[dict[str, Any]], name: str) -> str:
    found = [(number(one.get(name)), number(one.get("synthetic_samples"))) for one in metrics]
    known = [(count, total) for count, total in found if count is not None and total is not None]
    if not known:
        return ABSENT
    count, total = (sum(values) / len(known) for values in zip(*known, strict=True))
    return f"{count:g} of {total:g}"


def all_tables(records: Sequence[Record]) -> list[Table]:
    """Tables of audits and, where gradients were inverted, of what they show."""
    gradients = [record for record in records if record["kind"] == Kind.GRADIENTS]
    tables = audit_tables(records)
    return [*tables, gradient_table(gradients, records)] if gradients else tables


def markdown_page(records: Sequence[Record]) -> str:
    """All tables."""
    return "\n".join(markdown_table(table) for table in all_tables(records))


def gradient_table(records: Iterable[Record], audits: Iterable[Record]) -> Table:
    """Beside guesses from gradients, how well the released sample nearest to a member, and to others, resembles it."""
    rows: list[tuple[str, str, str]] = []
    for record in records:
        settings, decibels = record["settings"], numbers(record["metrics"].get("psnr"))
        name = f"gradient of {plural(settings['batch'], 'sample')} · {settings['data']}"
        rows.append((name, _decibels(decibels), ABSENT))
    for scenario in scenarios(audits, Kind.AUDIT):
        for variant in scenario.variants:
            members, others = (_decibels(variant.values(f"psnr_of_{who}")) for who in ("members", "others"))
            if members != ABSENT:
                rows.append((f"nearest sample of {variant.label} · {scenario.settings['data']}", members, others))
    columns = ("what is seen", "members (dB)", "others (dB)")
    return Table("What is seen of single samples", columns, tuple(rows), (_GRADIENTS_NOTE,))


def _decibels(values: list[float]) -> str:
    return f"{median(values):.1f}" if values else ABSENT
