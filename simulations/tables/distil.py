"""Methods side by side, beside published numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulations.formats import ABSENT, byte_size, mean, number, percent, plural, seconds
from simulations.running.runs import Kind, Record
from simulations.tables.comparison import Table, describe, distil_accuracies, escape, markdown_table
from simulations.tables.variants import REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE, Scenario, Variant, scenarios


@dataclass(frozen=True)
class Published:
    """A number from a paper.

    Attributes:
        accuracy: on the whole real test set, in [0, 1].
        recalled: written down from memory; look it up in the paper before citing it.
        note: in what it differs from the usual setting; empty where it does not.
    """

    accuracy: float
    recalled: bool
    note: str = ""


_SIZES = (1, 10, 50)
_TILES = "four images decoded from each stored one"
_SOFT = "soft labels"
_WIDE = "kernel ridge regression or a network of width 1024"

Row = tuple[tuple[float | None, float | None, float | None], bool]
"""Per cent at 1, 10 and 50 images per class, and whether they are recalled."""

_ROWS: dict[str, dict[str, Row]] = {
    "random": {
        "mnist": ((64.9, 95.1, 97.9), True),
        "fashion-mnist": ((51.4, 73.8, 82.5), True),
        "cifar10": ((14.4, 26.0, 43.4), False),
    },
    "herding": {
        "mnist": ((89.2, 93.7, 94.8), True),
        "fashion-mnist": ((67.0, 71.1, 71.9), True),
        "cifar10": ((21.5, 31.6, 40.4), False),
    },
    "dc": {
        "mnist": ((91.7, 97.4, 98.8), False),
        "fashion-mnist": ((70.5, 82.3, 83.6), False),
        "cifar10": ((28.3, 44.9, 53.9), False),
    },
    "dsa": {
        "mnist": ((88.7, 97.8, 99.2), False),
        "fashion-mnist": ((70.6, 84.6, 88.7), False),
        "cifar10": ((28.8, 52.1, 60.6), False),
    },
    "dcc": {"cifar10": ((32.9, 49.4, 61.6), False)},
    "dm": {"mnist": ((89.7, 97.5, 98.6), True), "cifar10": ((26.0, 48.9, 63.0), False)},
    "cafe": {
        "mnist": ((93.1, 97.2, 98.6), True),
        "fashion-mnist": ((77.1, 83.0, 84.8), True),
        "cifar10": ((30.3, 46.3, 55.5), False),
    },
    "idc": {
        "mnist": ((94.2, 98.4, 99.1), False),
        "fashion-mnist": ((81.0, 86.0, 86.2), False),
        "cifar10": ((50.6, 67.5, 74.5), False),
    },
    "kip": {
        "mnist": ((90.1, 97.5, 98.3), True),
        "fashion-mnist": ((73.5, 86.8, 88.0), True),
        "cifar10": ((49.9, 62.7, 68.6), False),
    },
    "frepo": {
        "mnist": ((93.0, 98.6, 99.2), True),
        "fashion-mnist": ((75.6, 86.2, 89.6), True),
        "cifar10": ((46.8, 65.5, 71.7), False),
    },
    "rfad": {
        "mnist": ((94.4, 98.5, 98.8), True),
        "fashion-mnist": ((78.6, 87.0, 88.8), True),
        "cifar10": ((53.6, 66.3, 71.1), False),
    },
    "mtt": {
        "mnist": ((91.4, 97.3, 98.5), True),
        "fashion-mnist": ((75.1, 87.2, 88.3), True),
        "cifar10": ((46.3, 65.3, 71.6), False),
    },
    "rtp": {
        "mnist": ((98.7, 99.3, 99.4), True),
        "fashion-mnist": ((88.5, 90.0, 91.2), True),
        "cifar10": ((66.4, 71.2, 73.6), False),
    },
    "ncfm": {"cifar10": ((49.5, 71.8, 77.4), False)},
    "datm": {"cifar10": ((46.9, 66.8, 76.1), False)},
}

_NOTES = {
    "idc": _TILES,
    "ncfm": f"{_TILES}, {_SOFT}",
    "datm": _SOFT,
    "kip": _WIDE,
    "rfad": _WIDE,
    "frepo": f"learned labels, {_SOFT}",
    "rtp": "stored as shared bases and addresses",
}

WHOLE_DATA = {
    "mnist": Published(0.996, recalled=True),
    "fashion-mnist": Published(0.935, recalled=True),
    "cifar10": Published(0.848, recalled=False),
}
"""The same network trained on all real data."""


def published(method: str, data: str, images_per_class: int) -> Published | None:
    """What the method's paper, or one that compares with it, states; None where nothing is known."""
    row = _ROWS.get(method, {}).get(data)
    if row is None or images_per_class not in _SIZES:
        return None
    values, recalled = row
    value = values[_SIZES.index(images_per_class)]
    return None if value is None else Published(value / 100, recalled, _NOTES.get(method, ""))


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
    finished = [record for record in records if record["kind"] == Kind.DISTIL]
    failed = [record for record in records if record["kind"] == Kind.DISTIL_FAILED]
    tables = []
    for size in dict.fromkeys(_Size.of(record["settings"]) for record in records):
        of_size = [record for record in finished if _Size.of(record["settings"]) == size]
        if size.byte_budget is not None and {record["settings"]["method"] for record in of_size} == {"random"}:
            continue
        for scenario in scenarios([*of_size, *_as_results(failed, size)], Kind.DISTIL):
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
    return [{**record, "kind": Kind.DISTIL} for record in failed if _Size.of(record["settings"]) == size]


def _table(scenario: Scenario, size: _Size, finished: Sequence[Record]) -> Table:
    variants = sorted(scenario.variants, key=lambda variant: -(mean(distil_accuracies(variant)) or -1.0))
    rows = tuple(tuple(show(variant, finished) for show in _COLUMNS.values()) for variant in variants)
    notes = [_NOTE]
    if any(RECALLED_MARK in text for row in rows for text in row):
        notes.append(_RECALLED_NOTE)
    notes += [f"{name}, as published: {note}." for name, note in _published_notes(variants)]
    if any(variant.label.endswith(REAL_SAMPLES_MARK) for variant in variants):
        notes.append(REAL_SAMPLES_NOTE)
    notes += [note for variant in variants for note in _busy_machine(variant)]
    notes += [f"{variant.label} failed: {reason}" for variant in variants for reason in _reasons(variant)]
    return Table(f"{describe(_with_results(scenario))} · {size}", tuple(_COLUMNS), rows, tuple(notes))


def _with_results(scenario: Scenario) -> Scenario:
    """The scenario with variants that have results first: the way of judging is read from the first."""
    variants = tuple(sorted(scenario.variants, key=lambda variant: not distil_accuracies(variant)))
    return Scenario(scenario.kind, scenario.settings, variants)


def _accuracy(variant: Variant, finished: Sequence[Record]) -> str:
    accuracies = distil_accuracies(variant)
    return percent(accuracies) if accuracies else "failed"


def _random_at_equal_bytes(variant: Variant, finished: Sequence[Record]) -> str:
    found = [random for record in variant.records for random in _equal_in_bytes(record, finished)]
    return percent([value for record in found for value in record["metrics"]["accuracies"]])


def _equal_in_bytes(record: Record, finished: Sequence[Record]) -> list[Record]:
    """The random selection that was given the record's bytes, or that fills them to a sample; none if absent."""
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
    given = best["settings"].get("byte_budget") == payload
    return [best] if given or payload - filled <= filled / samples else []


def _paper(variant: Variant) -> Published | None:
    if variant.settings.get("byte_budget") is not None:
        return None
    images_per_class = number(variant.settings.get("images_per_class")) or 0
    return published(str(variant.settings.get("method")), str(variant.settings.get("data")), int(images_per_class))


def _published(variant: Variant, finished: Sequence[Record]) -> str:
    paper = _paper(variant)
    return ABSENT if paper is None else f"{100 * paper.accuracy:.1f}{RECALLED_MARK if paper.recalled else ''}"


def _gap(variant: Variant, finished: Sequence[Record]) -> str:
    paper, ours = _paper(variant), mean(distil_accuracies(variant))
    return ABSENT if paper is None or ours is None else f"{100 * (ours - paper.accuracy):+.1f}"


def _published_notes(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    papers = {str(variant.settings.get("method")): _paper(variant) for variant in variants}
    return [(method, paper.note) for method, paper in papers.items() if paper is not None and paper.note]


def _reasons(variant: Variant) -> list[str]:
    reasons = [record["metrics"].get("reason") for record in variant.records if not record["metrics"].get("accuracies")]
    return list(dict.fromkeys(str(reason) for reason in reasons if reason))


def _busy_machine(variant: Variant) -> list[str]:
    """A budget in seconds is of the clock: who shared the processor with others got less than the table says."""
    spent, got = mean(variant.values("distil_seconds")), mean(variant.values("distil_cpu_seconds"))
    by_clock = (
        variant.settings.get("distil_seconds") is not None and variant.settings.get("distil_clock", "wall") == "wall"
    )
    by_clock = by_clock and variant.settings.get("device") == "cpu"
    if not by_clock or not variant.values("steps") or not spent or got is None or got >= _FULL_SHARE * spent:
        return []
    if mean(variant.values("steps")) == 0:  # a selection, which no budget bounds
        return []
    return [f"{variant.label} had {got:.0f} CPU-seconds in {spent:.0f} s: the machine was busy with something else."]


def _family(variant: Variant, finished: Sequence[Record]) -> str:
    from fedcl_distill.methods import METHODS, Method

    name = str(variant.settings.get("method"))
    return Method.named(name).family if name in METHODS else ABSENT


def _metric(name: str, show: Callable[[float | None], str]) -> Callable[[Variant, Sequence[Record]], str]:
    return lambda variant, finished: show(mean(variant.values(name)))


def _memory(variant: Variant) -> str:
    peak, start = mean(variant.values("distil_peak_bytes")), mean(variant.values("distil_start_bytes"))
    if peak is None or start is None:
        return byte_size(peak)
    return f"{byte_size(peak)} (+{byte_size(max(0.0, peak - start))})"


def _count(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}"


_COLUMNS: dict[str, Callable[[Variant, Sequence[Record]], str]] = {
    "method": lambda variant, finished: variant.label,
    "family": _family,
    "accuracy (%)": _accuracy,
    "random, same bytes (%)": _random_at_equal_bytes,
    "published (%)": _published,
    "gap": _gap,
    "CPU time": _metric("distil_cpu_seconds", seconds),
    "peak memory": lambda variant, finished: _memory(variant),
    "stored": _metric("payload_bytes", byte_size),
    "steps": _metric("steps", _count),
    "seeds": lambda variant, finished: str(len(variant.records)),
}


def _circumstances(records: Sequence[Record]) -> str:
    settings = [record["settings"] for record in records]
    environments = [record.get("environment") or {} for record in records if record["kind"] == Kind.DISTIL]
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
