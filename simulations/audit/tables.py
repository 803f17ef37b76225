"""Audits as tables: a row for each arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from simulations.audit.settings import ATTACKS, KIND
from simulations.running.records import Record
from simulations.tables.arms import REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE, Arm, Scenario, scenarios
from simulations.tables.comparison import Table, describe
from simulations.tables.formats import ABSENT, mean, number

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
    for scenario in scenarios(records, KIND):
        found += [
            _overview(scenario),
            _by_attack(scenario, "auc", "area under the curve", 1, 3),
            _by_attack(scenario, "tpr_at_0.01", "members found (%) at 1 % false alarms", 100, 1),
            _by_attack(scenario, "tpr_at_0.001", "members found (%) at 0.1 % false alarms", 100, 1),
        ]
    return [table for table in found if len(table.columns) > 1]


def attacks_of(arms: Iterable[Arm]) -> list[str]:
    """Names of attacks: those on models first."""
    found = {name for arm in arms for record in arm.records for name in _attacks(record)}
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
    rows = tuple(_overview_row(arm) for arm in scenario.arms)
    notes = [_BOUND]
    if any(arm.label.endswith(REAL_SAMPLES_MARK) for arm in scenario.arms):
        notes.append(REAL_SAMPLES_NOTE)
    return Table(f"Audit · {describe(scenario)}", columns, rows, tuple(notes))


def _overview_row(arm: Arm) -> tuple[str, ...]:
    metrics = [record["metrics"] for record in arm.records]
    areas = {name: _value(arm, name, "auc") for name in attacks_of([arm])}
    finds = {name: _value(arm, name, "tpr_at_0.01") for name in areas}
    claims = {number((one.get("claimed") or {}).get("epsilon")) for one in metrics} - {None}
    decibels = [_show([number(one.get(name)) for one in metrics], 1) for name in ("psnr_of_members", "psnr_of_others")]
    return (
        arm.label,
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
    arms = scenario.arms
    names = [name for name in attacks_of(arms) if any(_value(arm, name, metric) is not None for arm in arms)]
    rows = tuple((arm.label, *(_interval(arm, name, metric, scale, digits) for name in names)) for arm in arms)
    return Table(f"Membership inference, {what} · {describe(scenario)}", ("release", *names), rows, (_GAME,))


def _attacks(record: Record) -> dict[str, Any]:
    found = record["metrics"].get("attacks")
    return found if isinstance(found, dict) else {}


def _estimates(arm: Arm, name: str, metric: str, part: str) -> list[float]:
    found = [(_attacks(record).get(name) or {}).get(metric) or {} for record in arm.records]
    return [value for one in found if (value := number(one.get(part))) is not None]


def _value(arm: Arm, name: str, metric: str) -> float | None:
    return mean(_estimates(arm, name, metric, "value"))


def _interval(arm: Arm, name: str, metric: str, scale: float, digits: int) -> str:
    parts = [mean(_estimates(arm, name, metric, part)) for part in ("value", "low", "high")]
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
