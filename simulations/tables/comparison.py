"""The tables of a comparison, for the terminal, for Markdown and for the report alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simulations.formats import ABSENT, byte_size, mean, number, numbers, percent, seconds
from simulations.running.runs import Kind, Record
from simulations.tables.variants import PRIVACY, REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE, Scenario, Variant


@dataclass(frozen=True)
class Table:
    """Text in rows.

    Attributes:
        title: says what is compared, and under which circumstances.
        columns: titles, with units.
        rows: as many texts as there are columns.
        notes: below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def without(table: Table, column: str) -> Table:
    """``table`` without a column that a narrow place has no room for."""
    kept = [place for place, name in enumerate(table.columns) if name != column]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in kept), rows=rows)


Cell = Callable[[Variant], str]


def table_of(scenario: Scenario) -> Table:
    """The table that belongs to the scenario's kind, best variant first."""
    columns = _COLUMNS[scenario.kind]
    variants = sorted(scenario.variants, key=_ORDER[scenario.kind])
    rows = tuple(tuple(show(variant) for show in columns.values()) for variant in variants)
    return Table(describe(scenario), tuple(columns), rows, _notes(scenario))


def describe(scenario: Scenario) -> str:
    """The task in a few words: "digits · 4 clients · dirichlet:0.1"."""
    task = scenario.settings
    parts = [str(task.get("data"))]
    if task.get("train_limit") is not None:
        parts.append(f"{task['train_limit']} training samples")
    if task.get("validation_share"):
        parts.append(f"judged on {100 * task['validation_share']:g} % of them, held out")
    if scenario.kind.startswith("federated"):
        parts += [f"{task.get('clients')} clients", f"partition {task.get('partition')}"]
    if scenario.kind.endswith("continual"):
        scenario_name = task.get("scenario") or "class"
        changing = f"domain ({task.get('domain')})" if scenario_name == "domain" else scenario_name
        parts.append(f"{changing}-incremental{', online' if task.get('online') else ''}")
        parts.append(f"{task.get('experiences')} experiences")
    if scenario.kind == "audit" and task.get("candidates") is not None:
        parts.append(f"{task['candidates']:,} candidates")
    if scenario.kind == "federated-continual":
        parts.append(f"stream {task.get('stream')}")
    if scenario.kind == "distil":
        parts.append(protocol_of(scenario))
    return " · ".join(parts)


def protocol_of(scenario: Scenario) -> str:
    """How a distil scenario was judged: "fast protocol (3 × convnet(width=64))"."""
    metrics = scenario.variants[0].records[0]["metrics"]
    name = metrics.get("protocol") or scenario.settings.get("protocol")
    networks, architecture = len(numbers(metrics.get("accuracies"))), metrics.get("architecture")
    return f"{name} protocol" + (f": {networks} × {architecture}" if networks and architecture else "")


def distil_accuracies(variant: Variant) -> list[float]:
    """Accuracy of every network of every seed."""
    return [value for record in variant.records for value in numbers(record["metrics"].get("accuracies"))]


def total_bytes(variant: Variant) -> list[float]:
    """Bytes up and down together, for each seed."""
    pairs = [(number(r["metrics"].get("bytes_up")), number(r["metrics"].get("bytes_down"))) for r in variant.records]
    return [up + down for up, down in pairs if up is not None and down is not None]


def final_memory_bytes(variant: Variant) -> float | None:
    """Bytes of the memory after the last experience, mean over seeds."""
    memories = [numbers(record["metrics"].get("memory_bytes")) for record in variant.records]
    return mean([memory[-1] for memory in memories if memory])


def memory_cpu_seconds(variant: Variant) -> float | None:
    """CPU-seconds that the memory took to take in an experience, mean over experiences and runs."""
    spent = [numbers(record["metrics"].get("memory_cpu_seconds")) for record in variant.records]
    return mean([value for one in spent for value in one])


def _size(variant: Variant) -> str:
    if variant.settings.get("byte_budget") is not None:
        return f"≤ {byte_size(number(variant.settings['byte_budget']))}"
    return f"{variant.settings.get('images_per_class', ABSENT)} ipc"


def _rejections(variant: Variant) -> str:
    lists = [record["metrics"].get("rejections") for record in variant.records]
    return str(sum(len(one) for one in lists if isinstance(one, list)))


def _rounds(variant: Variant) -> str:
    return str(variant.settings.get("rounds", ABSENT))


def _runs(variant: Variant) -> str:
    return str(len(variant.records))


def _count(variant: Variant, metric: str) -> str:
    value = mean(variant.values(metric))
    return ABSENT if value is None else f"{value:,.0f}"


def _bytes(metric: str) -> Cell:
    return lambda variant: byte_size(mean(variant.values(metric)))


def _seconds(metric: str) -> Cell:
    return lambda variant: seconds(mean(variant.values(metric)))


def _percent(metric: str) -> Cell:
    return lambda variant: percent(variant.values(metric))


def _chosen(variant: Variant) -> str:
    """What candidates differ in: "local learning rate 0.03, local epochs 2"."""
    candidates = variant.settings.get("candidates")
    others = [_flat(one) for one in candidates] if isinstance(candidates, list) else []
    chosen = _flat(variant.records[0]["metrics"].get("chosen"))
    differing = {name: value for name, value in chosen.items() if any(one.get(name) != value for one in others)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in differing.items()) or ABSENT


def _flat(values: Any) -> dict[str, Any]:
    """Settings by name, those of a method or strategy beside the others; results come from files."""
    found: dict[str, Any] = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        found.update(value if isinstance(value, dict) else {name: value})
    return found


def _of_candidates(variant: Variant) -> str:
    return " / ".join(percent([value]) for value in numbers(variant.records[0]["metrics"].get("accuracies")))


_COLUMNS: dict[str, dict[str, Cell]] = {
    "distil": {
        "method": lambda variant: variant.label,
        "size": _size,
        "payload": _bytes("payload_bytes"),
        "bits": lambda variant: str(variant.settings.get("bits", ABSENT)),
        "accuracy (%)": lambda variant: percent(distil_accuracies(variant)),
        "took": _seconds("distil_seconds"),
        "steps": lambda variant: _count(variant, "steps"),
        "seeds": _runs,
    },
    "federated": {
        "strategy": lambda variant: variant.label,
        "rounds": _rounds,
        "accuracy (%)": _percent("accuracy"),
        "up": _bytes("bytes_up"),
        "down": _bytes("bytes_down"),
        "clients": _seconds("slowest_client_seconds"),
        "server": _seconds("server_seconds"),
        "rejected": _rejections,
        "seeds": _runs,
    },
    Kind.FEDERATED_TUNING: {
        "strategy": lambda variant: variant.label,
        "chosen": _chosen,
        "accuracy (%)": _percent("accuracy"),
        "all candidates (%)": _of_candidates,
    },
    "continual": {
        "strategy": lambda variant: variant.label,
        "accuracy (%)": _percent("average_accuracy"),
        "forgetting (%)": _percent("forgetting"),
        "memory": lambda variant: byte_size(final_memory_bytes(variant)),
        "taking in": lambda variant: seconds(memory_cpu_seconds(variant)),
        "replayed": lambda variant: _count(variant, "replayed"),
        "took": lambda variant: seconds(mean(variant.seconds)),
        "runs": _runs,
    },
    "federated-continual": {
        "strategy": lambda variant: variant.label,
        "rounds": _rounds,
        "accuracy (%)": _percent("average_accuracy"),
        "forgetting (%)": _percent("forgetting"),
        "up": _bytes("bytes_up"),
        "down": _bytes("bytes_down"),
        "server keeps": _bytes("server_bytes"),
        "clients keep": _bytes("client_bytes"),
        "took": lambda variant: seconds(mean(variant.seconds)),
        "rejected": _rejections,
        "runs": _runs,
    },
}


def _negative_mean(metric: str) -> Callable[[Variant], float]:
    return lambda variant: -(mean(variant.values(metric)) or 0.0)


_ORDER: dict[str, Callable[[Variant], Any]] = {
    "distil": lambda variant: (
        mean(variant.values("payload_bytes")) or 0.0,
        -(mean(distil_accuracies(variant)) or 0.0),
    ),
    "federated": _negative_mean("accuracy"),
    Kind.FEDERATED_TUNING: _negative_mean("accuracy"),
    "continual": _negative_mean("average_accuracy"),
    "federated-continual": _negative_mean("average_accuracy"),
}


_NOTES = {
    "distil": "Accuracy on real test data: mean ± standard deviation over all networks of all seeds. "
    "Payload: what would be sent, at the stated bits a value. ipc: images per class.",
    "federated": "Accuracy of the final model on central test data. Up, down: bytes of all clients and rounds. "
    "Clients: seconds of the slowest client of each round, summed. Rejected: answers that were not used.",
    Kind.FEDERATED_TUNING: "The candidate with the best accuracy on held-out training data; it then runs on all "
    "training data.",
    "continual": "Accuracy: mean over all experiences after the last one. Memory: bytes kept beside the model "
    "after it. Taking in: CPU-seconds of the memory for each experience. Replayed: remembered samples added to "
    "training batches.",
    "federated-continual": "Accuracy of the global model: mean over all experiences after the last stage. Rounds: of "
    "each stage. Up, down: bytes of all clients and stages. Server, clients: bytes kept beside the model in the end, "
    "of all clients together. joint and joint-distilled take all data as they are: ceilings.",
}


def _notes(scenario: Scenario) -> tuple[str, ...]:
    notes = [_NOTES[scenario.kind]]
    if scenario.seed_count == 1:
        notes.append("One seed: differences of a few per cent may be chance.")
    elif scenario.kind != "distil":
        orders = " and orders of classes" if scenario.kind.endswith("continual") else ""
        notes.append(f"Mean ± standard deviation over seeds{orders}.")
    if any(variant.label.endswith(REAL_SAMPLES_MARK) for variant in scenario.variants):
        notes.append(REAL_SAMPLES_NOTE)
    if any(record["metrics"].get(PRIVACY) for variant in scenario.variants for record in variant.records):
        notes.append("[ε, δ]: differentially private, for a single record added or removed; see docs/privacy.md.")
    return tuple(notes)


def markdown_table(table: Table, level: int = 2) -> str:
    """Heading, rows and notes of ``table``; numbers to the right, words to the left."""
    rule = ["---:" if _is_numeric(texts) else "---" for texts in zip(*table.rows, strict=True)]
    lines = [f"{'#' * level} {escape(table.title)}", ""]
    lines += [_row([escape(column) for column in table.columns]), _row(rule)]
    lines += [_row([escape(text) for text in row]) for row in table.rows]
    for note in table.notes:
        lines += ["", escape(note)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, without what Markdown would take for markup or for the end of a cell."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "*", "_", "`", "<", "["):
        flat = flat.replace(sign, "\\" + sign)
    return flat


def _is_numeric(texts: Sequence[str]) -> bool:
    return any(text[:1].isdigit() or text[:1] in "+-" for text in texts if text)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_NOTE = "Test accuracy in per cent: mean ± standard deviation over networks, all trained from scratch on the set alone."
_SCORES_NOTE = (
    "LRS, ARS: label- and augmentation-robust score of DD-Ranking in per cent; an ARS of 27 is no better than random."
)


def cross_tables(records: Sequence[Record]) -> list[Table]:
    """A table for each data set and protocol, best set first; scores beside it where there are any."""
    judged = [record for record in records if record["kind"] == Kind.CROSS_ARCHITECTURE]
    places = dict.fromkeys((record["settings"]["data"], record["settings"]["protocol"]) for record in judged)
    return [_table(place, records) for place in places]


def _table(place: tuple[str, str], records: Sequence[Record]) -> Table:
    here = [r for r in records if (r["settings"].get("data"), r["settings"].get("protocol")) == place]
    judged, scored = ([r for r in here if r["kind"] == kind] for kind in (Kind.CROSS_ARCHITECTURE, Kind.SCORES))
    architectures = list(dict.fromkeys(record["settings"]["architecture"] for record in judged))
    sets = {record["settings"]["set"]: record["settings"] for record in judged}
    order = sorted(sets, key=lambda one: -(_mean_accuracy(_of(judged, one)) or 0.0))
    rows = []
    for one in order:
        row = [f"{sets[one]['method']} ({sets[one]['samples']} samples)"]
        for architecture in architectures:
            found = [r for r in _of(judged, one) if r["settings"]["architecture"] == architecture]
            row.append(percent([value for record in found for value in numbers(record["metrics"].get("accuracies"))]))
        if scored:
            row += [_score(_of(scored, one), name) for name in ("label_robust_score", "augmentation_robust_score")]
        rows.append(tuple(row))
    columns = ("set", *architectures, *(("LRS", "ARS") if scored else ()))
    notes = (_NOTE, _SCORES_NOTE) if scored else (_NOTE,)
    return Table(f"{place[0]} · {place[1]} protocol, by architecture", columns, tuple(rows), notes)


def _of(records: Iterable[Record], digest: str) -> list[Record]:
    return [record for record in records if record["settings"].get("set") == digest]


def _mean_accuracy(records: Sequence[Record]) -> float | None:
    values = [value for record in records for value in numbers(record["metrics"].get("accuracies"))]
    return sum(values) / len(values) if values else None


def _score(records: Sequence[Record], name: str) -> str:
    values = [value for record in records if (value := number(record["metrics"].get(name))) is not None]
    return percent(values) if values else ABSENT


def table_of_robustness(records: Sequence[Record]) -> Table:
    """One line for each network: what it was trained on, and its accuracy under every level of attack."""
    levels = sorted({level for record in records for level in record["settings"]["levels"]})
    rows = []
    for record in records:
        for one in record["metrics"]["networks"]:
            reached = dict(zip(record["settings"]["levels"], one["adversarial"], strict=True))
            values = [number(one["clean"]), *(number(reached.get(level)) for level in levels)]
            shown = [percent([value] if value is not None else []) for value in values]
            rows.append((f"{record['settings']['file']}: {one['trained_on']}", *shown))
    title = "Accuracy (%) under PGD, by the most that a value may change, in 255ths of its range"
    return Table(title, ("trained on", "0", *(f"{level:g}" for level in levels)), tuple(rows))
