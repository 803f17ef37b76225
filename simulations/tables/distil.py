"""The cells of a table of methods as tables for a terminal and as a page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulations.running.records import Record
from simulations.scenarios.distil import KIND
from simulations.scenarios.distil_table import FAILED
from simulations.tables.arms import REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE, Arm, Scenario, scenarios
from simulations.tables.comparison import Table, describe, distil_accuracies
from simulations.tables.formats import ABSENT, byte_size, mean, number, percent, plural, seconds
from simulations.tables.markdown import escape, markdown_table
from simulations.tables.published import Published, published

_FULL_SHARE = 0.8
RECALLED_MARK = " ᴿ"
_NOTE = (
    "Accuracy: mean ± standard deviation over all networks of all seeds, trained from scratch on what was stored. "
    "Random, same bytes: as many random real samples as fit into the same payload. Published: by the papers, with "
    "hours on GPUs and a ConvNet-3 of width 128. Gap: ours minus published, in points. CPU time, peak memory: of the "
    "distillation, each in a process of its own; in brackets what is not interpreter and data. Stored: payload at the "
    "stated bits a value."
)
_RECALLED_NOTE = "ᴿ Recalled, not looked up in the paper."


@dataclass(frozen=True)
class _Size:
    """What makes rows comparable beside the scenario: samples a class, or a byte budget."""

    images_per_class: int | None
    byte_budget: int | None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> _Size:
        budget = settings.get("byte_budget")
        return cls(None, budget) if budget is not None else cls(settings.get("images_per_class"), None)

    def __str__(self) -> str:
        if self.byte_budget is not None:
            return f"at most {byte_size(float(self.byte_budget))}"
        return f"{plural(self.images_per_class or 0, 'image')} per class"


def tables_of(records: Sequence[Record]) -> list[Table]:
    """A table for each data set, way of judging and size, in the order of the first results, best method first.

    ``records`` are results and failures alike. Random selections by bytes are baselines of others, no rows.
    """
    finished = [record for record in records if record["kind"] == KIND]
    failed = [record for record in records if record["kind"] == FAILED]
    tables = []
    for size in dict.fromkeys(_Size.of(record["settings"]) for record in records):
        of_size = [record for record in finished if _Size.of(record["settings"]) == size]
        if size.byte_budget is not None and {record["settings"]["method"] for record in of_size} == {"random"}:
            continue
        for scenario in scenarios([*of_size, *_as_results(failed, size)], KIND):
            tables.append(_table(scenario, size, finished))
    return tables


def markdown_page(records: Sequence[Record]) -> str:
    """All tables, and above them where, with what and at which budget they were made."""
    parts = ["# Methods at one budget\n", _circumstances(records)]
    parts += [markdown_table(table) for table in tables_of(records)]
    parts.append(_method_settings(records))
    return "\n".join(part for part in parts if part)


def _as_results(failed: Sequence[Record], size: _Size) -> list[Record]:
    """Failures as results without an accuracy, so that they find the scenario they belong to."""
    return [{**record, "kind": KIND} for record in failed if _Size.of(record["settings"]) == size]


def _table(scenario: Scenario, size: _Size, finished: Sequence[Record]) -> Table:
    arms = sorted(scenario.arms, key=lambda arm: -(mean(distil_accuracies(arm)) or -1.0))
    rows = tuple(tuple(show(arm, finished) for show in _COLUMNS.values()) for arm in arms)
    notes = [_NOTE]
    if any(RECALLED_MARK in text for row in rows for text in row):
        notes.append(_RECALLED_NOTE)
    notes += [f"{name}, as published: {note}." for name, note in _published_notes(arms)]
    if any(arm.label.endswith(REAL_SAMPLES_MARK) for arm in arms):
        notes.append(REAL_SAMPLES_NOTE)
    notes += [note for arm in arms for note in _busy_machine(arm)]
    notes += [f"{arm.label} failed: {reason}" for arm in arms for reason in _reasons(arm)]
    return Table(f"{describe(_with_results(scenario))} · {size}", tuple(_COLUMNS), rows, tuple(notes))


def _with_results(scenario: Scenario) -> Scenario:
    """The scenario with arms that have results first: the way of judging is read from the first."""
    arms = tuple(sorted(scenario.arms, key=lambda arm: not distil_accuracies(arm)))
    return Scenario(scenario.kind, scenario.settings, arms)


def _accuracy(arm: Arm, finished: Sequence[Record]) -> str:
    accuracies = distil_accuracies(arm)
    return percent(accuracies) if accuracies else "failed"


def _random_at_equal_bytes(arm: Arm, finished: Sequence[Record]) -> str:
    found = [random for record in arm.records for random in _equal_in_bytes(record, finished)]
    return percent([value for record in found for value in record["metrics"]["accuracies"]])


def _equal_in_bytes(record: Record, finished: Sequence[Record]) -> list[Record]:
    """The random selection that fills the record's payload: one more sample would not have fitted; none if absent."""
    payload = number(record["metrics"].get("payload_bytes"))
    if payload is None:
        return []
    names = ("data", "train_limit", "protocol", "architecture", "networks", "bits", "seed")
    task = [record["settings"].get(name) for name in names]
    fitting = [
        other
        for other in finished
        if other["settings"]["method"] == "random"
        and [other["settings"].get(name) for name in names] == task
        and other["metrics"]["payload_bytes"] <= payload
    ]
    best = max(fitting, key=lambda other: float(other["metrics"]["payload_bytes"]), default=None)
    if best is None:
        return []
    filled, samples = best["metrics"]["payload_bytes"], best["metrics"]["samples"]
    return [best] if payload - filled <= filled / samples else []


def _paper(arm: Arm) -> Published | None:
    if arm.settings.get("byte_budget") is not None:
        return None
    images_per_class = number(arm.settings.get("images_per_class")) or 0
    return published(str(arm.settings.get("method")), str(arm.settings.get("data")), int(images_per_class))


def _published(arm: Arm, finished: Sequence[Record]) -> str:
    paper = _paper(arm)
    return ABSENT if paper is None else f"{100 * paper.accuracy:.1f}{RECALLED_MARK if paper.recalled else ''}"


def _gap(arm: Arm, finished: Sequence[Record]) -> str:
    paper, ours = _paper(arm), mean(distil_accuracies(arm))
    return ABSENT if paper is None or ours is None else f"{100 * (ours - paper.accuracy):+.1f}"


def _published_notes(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    papers = {str(arm.settings.get("method")): _paper(arm) for arm in arms}
    return [(method, paper.note) for method, paper in papers.items() if paper is not None and paper.note]


def _reasons(arm: Arm) -> list[str]:
    reasons = [record["metrics"].get("reason") for record in arm.records if not record["metrics"].get("accuracies")]
    return list(dict.fromkeys(str(reason) for reason in reasons if reason))


def _busy_machine(arm: Arm) -> list[str]:
    """A budget in seconds is of the clock: who shared the processor with others got less than the table says."""
    spent, got = mean(arm.values("distil_seconds")), mean(arm.values("distil_cpu_seconds"))
    by_clock = arm.settings.get("distil_seconds") is not None and arm.settings.get("distil_clock", "wall") == "wall"
    by_clock = by_clock and arm.settings.get("device") == "cpu"
    if not by_clock or not arm.values("steps") or not spent or got is None or got >= _FULL_SHARE * spent:
        return []
    if mean(arm.values("steps")) == 0:  # a selection, which no budget bounds
        return []
    return [f"{arm.label} had {got:.0f} CPU-seconds in {spent:.0f} s: the machine was busy with something else."]


def _family(arm: Arm, finished: Sequence[Record]) -> str:
    from fedcl_distill.methods import METHODS

    method = METHODS.get(str(arm.settings.get("method")))
    return ABSENT if method is None else method.family


def _metric(name: str, show: Callable[[float | None], str]) -> Callable[[Arm, Sequence[Record]], str]:
    return lambda arm, finished: show(mean(arm.values(name)))


def _memory(arm: Arm) -> str:
    peak, start = mean(arm.values("distil_peak_bytes")), mean(arm.values("distil_start_bytes"))
    if peak is None or start is None:
        return byte_size(peak)
    return f"{byte_size(peak)} (+{byte_size(max(0.0, peak - start))})"


def _count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


_COLUMNS: dict[str, Callable[[Arm, Sequence[Record]], str]] = {
    "method": lambda arm, finished: arm.label,
    "family": _family,
    "accuracy (%)": _accuracy,
    "random, same bytes (%)": _random_at_equal_bytes,
    "published (%)": _published,
    "gap": _gap,
    "CPU time": _metric("distil_cpu_seconds", seconds),
    "peak memory": lambda arm, finished: _memory(arm),
    "stored": _metric("payload_bytes", byte_size),
    "steps": _metric("steps", _count),
    "seeds": lambda arm, finished: str(len(arm.records)),
}


def _circumstances(records: Sequence[Record]) -> str:
    settings = [record["settings"] for record in records]
    environments = [record.get("environment") or {} for record in records if record["kind"] == KIND]
    versions = {name: v for env in environments for name, v in (env.get("versions") or {}).items() if v}
    lines = [
        f"Budget of each cell: {_budgets(settings)}. Seeds: {_distinct(one.get('seed') for one in settings)}. "
        f"Bits a value: {_distinct(one.get('bits') for one in settings)}.",
        f"Machine: {_distinct(env.get('processor') for env in environments)}, "
        f"{_distinct(env.get('cores') for env in environments)} cores, threads a process: "
        f"{_distinct(env.get('threads') for env in environments)}, accelerator: "
        f"{_distinct(env.get('cuda') or 'none' for env in environments)}. "
        f"Python {_distinct(env.get('python') for env in environments)}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
    ]
    return "\n\n".join(escape(line) for line in lines) + "\n"


def _budgets(settings: Sequence[Mapping[str, Any]]) -> str:
    return _distinct(_budget(one) for one in settings)


def _budget(settings: Mapping[str, Any]) -> str:
    steps, limit = settings.get("distil_steps"), number(settings.get("distil_seconds"))
    texts = [] if steps is None else [f"{steps:,} steps"]
    clock = "CPU time" if settings.get("distil_clock") == "cpu" else "wall-clock time"
    texts += [] if limit is None else [f"{limit:g} s of {clock}"]
    return " or ".join(texts) or "the method's own"


def _method_settings(records: Sequence[Record]) -> str:
    """What was asked of each method in place of its defaults."""
    asked: dict[str, dict[str, None]] = {}
    for record in records:
        own = record["settings"].get("method_settings") or {}
        if own:
            text = " ".join(f"{name}={json.dumps(value)}" for name, value in own.items())
            asked.setdefault(str(record["settings"].get("method")), {})[text] = None
    if not asked:
        return ""
    lines = [f"- {escape(method)}: " + "; ".join(f"`{text}`" for text in texts) for method, texts in asked.items()]
    return "\n".join(["## Settings in place of the papers' defaults", "", *lines]) + "\n"


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or ABSENT
