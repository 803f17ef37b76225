"""Results put in order for tables and plots: scenarios, the variants compared in each, the runs of each variant."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from simulations.formats import mean, number, numbers
from simulations.running.runs import Kind, Record
from strategies.continual.settings import uses_method

_FEDERATION = ("data", "train_limit", "validation_share", "clients", "partition", "min_client_samples")
_SCENARIO = {
    "distil": ("data", "train_limit", "protocol", "architecture", "networks"),
    "federated": _FEDERATION,
    Kind.FEDERATED_TUNING: _FEDERATION,
    "continual": ("data", "train_limit", "scenario", "domain", "online", "experiences"),
    "privacy": ("data", "train_limit", "images_per_class"),
    "audit": ("data", "candidates", "releases", "architecture", "attack_epochs", "confidence"),
    "federated-continual": (
        *("data", "train_limit", "clients", "partition", "min_client_samples"),
        *("stream", "scenario", "domain", "experiences"),
    ),
}
"""Settings that pose the task: variants that differ in one of them are not put beside each other."""

_FEDERATED = ("federated", Kind.FEDERATED_TUNING, "audit")
"""Kinds whose strategy may or may not distil by ``method``: their results tell."""

REPEATED = ("order_seed", "seed")
"""Settings that only say which repetition of a variant a run is: it is judged over all orders of classes it met."""

RAW_DATA = frozenset({"centralised", "pooled-distillation", "joint", "joint-distilled"})
"""Federated variants for which clients hand over their data; named here too, for a report needs no Flower."""

PRIVACY = "privacy"
"""Metric of results under differential privacy: their guarantee."""

REAL_SAMPLES_MARK = " †"
REAL_SAMPLES_NOTE = "† real samples: whoever receives them sees someone's data, so this variant is not private."


@dataclass(frozen=True)
class Variant:
    """All seeds, and all orders of classes, of one combination of settings.

    Attributes:
        label: tells the variant from the others of its scenario.
        settings: all but ``REPEATED``.
        records: one for each repetition, by ascending order and seed.
    """

    label: str
    settings: Mapping[str, Any]
    records: tuple[Record, ...]

    def values(self, metric: str) -> list[float]:
        """The metric's finite values, one for each repetition that has one."""
        found = [number(record["metrics"].get(metric)) for record in self.records]
        return [value for value in found if value is not None]

    @property
    def seconds(self) -> list[float]:
        """Wall-clock seconds of each run."""
        return [value for value in (number(record.get("seconds")) for record in self.records) if value is not None]


@dataclass(frozen=True)
class Scenario:
    """One task and the variants that were tried on it."""

    kind: str
    settings: Mapping[str, Any]
    variants: tuple[Variant, ...]

    @cached_property
    def seed_count(self) -> int:
        """Repetitions of the variant that has most."""
        return max(len(variant.records) for variant in self.variants)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Settings in which variants differ, in the order of first appearance."""
        return _varying([variant.settings for variant in self.variants])


def scenarios(records: Iterable[Record], kind: str) -> list[Scenario]:
    """Scenarios of ``kind`` in the order of their first result; of two results with one key the later counts."""
    tasks: dict[str, dict[str, list[Record]]] = {}
    for record in _latest(records, kind):
        task = {name: record["settings"].get(name) for name in _SCENARIO[kind]}
        variant = _arm_settings(record)
        tasks.setdefault(_text(task), {}).setdefault(_text(variant), []).append(record)
    return [Scenario(kind, json.loads(task), _variants(kind, list(groups.values()))) for task, groups in tasks.items()]


def holds_real_samples(method: Any) -> bool:
    """Whether the method hands on real samples, as core sets do."""
    from fedcl_distill.methods import CORE_SET, METHODS, Method

    return isinstance(method, str) and method in METHODS and Method.named(method).family == CORE_SET


def _latest(records: Iterable[Record], kind: str) -> list[Record]:
    return list({one["key"]: one for one in records if one["kind"] == kind}.values())


def _variants(kind: str, groups: list[list[Record]]) -> tuple[Variant, ...]:
    return tuple(
        Variant(label, _arm_settings(group[0]), tuple(sorted(group, key=_repetition)))
        for label, group in zip(labels_of(kind, groups), groups, strict=True)
    )


def labels_of(kind: str, groups: Sequence[Sequence[Record]], ignoring: Collection[str] = ()) -> list[str]:
    """A name for each group of results of one scenario; namesakes also say in what they differ.

    Args:
        kind: of all results.
        groups: each has one combination of settings, but for ``REPEATED`` and ``ignoring``.
        ignoring: settings that no name tells.
    """
    bases = [_base_label(kind, group[0]) for group in groups]
    settings = [{n: v for n, v in _arm_settings(group[0]).items() if n not in ignoring} for group in groups]
    labels = []
    for group, base, own in zip(groups, bases, settings, strict=True):
        namesakes = [other for other, label in zip(settings, bases, strict=True) if label == base]
        label = ", ".join([base, *(_difference(name, own.get(name)) for name in _varying(namesakes))])
        mark = REAL_SAMPLES_MARK if _sends_real_samples(kind, group[0]) else ""
        labels.append(label + mark + _guarantee(group))
    return labels


def _arm_settings(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record["settings"].items() if name not in REPEATED}


def _repetition(record: Record) -> tuple[Any, ...]:
    return (*(number(record["settings"].get(name)) or 0 for name in REPEATED), record["key"])


def _strategy(record: Record) -> str:
    """As text, whatever a file says that it is."""
    return str(record["settings"].get("strategy"))


def _base_label(kind: str, record: Record) -> str:
    """What a variant is called as long as no other variant of that name differs from it."""
    strategy, method = _strategy(record), str(record["settings"].get("method"))
    if kind == "distil" or strategy == "distil":
        return method
    label = f"{strategy} ({method})" if _uses_method(kind, record) else strategy
    return f"{label} under {under}" if (under := attack_of(record["settings"])) else label


def attack_of(settings: Mapping[str, Any]) -> str:
    """What federated clients are attacked by: "3 × label-flip"; "" for nothing."""
    if not settings.get("attack"):
        return ""
    own = settings.get("attack_settings") or {}
    return " ".join([f"{settings.get('attackers')} × {settings['attack']}", *([_show(own)] if own else [])])


def _uses_method(kind: str, record: Record) -> bool:
    if kind in _FEDERATED and _strategy(record) == "statistics":
        return False  # the server distils by a way of its own
    if kind in _FEDERATED:
        return record["metrics"].get("synthetic_samples") is not None
    if kind == "federated-continual":
        return _strategy(record) in ("distilled", "joint-distilled")
    own = record["settings"].get("strategy_settings")
    return kind == "distil" or uses_method(_strategy(record), own if isinstance(own, dict) else {})


def _sends_real_samples(kind: str, record: Record) -> bool:
    """Whether a variant shows real samples to others; a memory that stays where the data were shows them to nobody."""
    if kind == "continual":
        return False
    if kind.startswith("federated") and _strategy(record) in RAW_DATA:
        return True
    return _uses_method(kind, record) and holds_real_samples(record["settings"].get("method"))


def _guarantee(group: Sequence[Record]) -> str:
    """What a variant is called beside its name where its results are differentially private, or claim it wrongly."""
    claims = [record["metrics"].get(PRIVACY) for record in group]
    known = [one for one in claims if isinstance(one, dict)]
    if not known or len(known) < len(claims):
        return ""
    if any(one.get("seeded") is not False for one in known):
        return " [noise from a known seed: not private]"
    epsilon, delta = (max(number(one.get(name)) or 0.0 for one in known) for name in ("epsilon", "delta"))
    return f" [ε {epsilon:g}, δ {delta:g}]"


def _varying(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    names = dict.fromkeys(name for one in settings for name in one)
    return tuple(name for name in names if len({_text(one.get(name)) for one in settings}) > 1)


def _difference(name: str, value: Any) -> str:
    if name == "images_per_class":
        return f"{value} ipc"
    return f"{name.replace('_', ' ')} {_show(value)}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_show(inner)}" for key, inner in value.items()) or "default"
    return "default" if value is None else str(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


SIZES = frozenset({"images_per_class", "byte_budget"})
BUDGETS = frozenset({"distil_steps", "distil_seconds"})


@dataclass(frozen=True)
class Series:
    """Variants that differ along some settings alone.

    Attributes:
        label: tells the series from the others of its scenario.
        variants: at least one.
    """

    label: str
    variants: tuple[Variant, ...]


def series_along(scenario: Scenario, along: Collection[str]) -> list[Series]:
    """The scenario's variants as series that differ in settings ``along`` alone, by their first variants."""
    groups: list[list[Variant]] = []
    for variant in scenario.variants:
        akin = next((group for group in groups if _shared(group[0], along) == _shared(variant, along)), None)
        if akin is None:
            groups.append([variant])
        else:
            akin.append(variant)
    labels = labels_of(scenario.kind, [group[0].records for group in groups], along)
    return [Series(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def _shared(variant: Variant, along: Collection[str]) -> dict[str, object]:
    return {name: value for name, value in variant.settings.items() if name not in along}


Matrix = list[list[float]]


def matrices_of(variant: Variant, *, square: bool = True) -> list[Matrix]:
    """The well-formed accuracy matrices of all runs; results come from files, which may hold anything.

    ``square`` ones have as many rows as experiences, or a single one; those of stages have any number.
    """
    found = (_matrix(record["metrics"].get("matrix"), square) for record in variant.records)
    return [matrix for matrix in found if matrix]


def seen_so_far(matrix: Matrix) -> list[float]:
    """After each experience, the mean accuracy on those trained on by then."""
    return [mean(row[: stage + 1]) or 0.0 for stage, row in enumerate(matrix)]


def forgotten(matrix: Matrix) -> list[float]:
    """For each experience but the last: best earlier accuracy minus the final one."""
    last = len(matrix) - 1
    return [max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)]


def _matrix(value: Any, square: bool) -> Matrix | None:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return None
    rows = [numbers(row) for row in value]
    regular = all(len(row) == len(value[0]) for row in value) and [len(r) for r in rows] == [len(r) for r in value]
    return rows if regular and (not square or len(rows) in (1, len(rows[0]))) else None
