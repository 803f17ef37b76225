"""The tables of a comparison, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from simulations.tables.arms import PRIVACY, REAL_SAMPLES_MARK, REAL_SAMPLES_NOTE, TUNING, Arm, Scenario
from simulations.tables.formats import ABSENT, byte_size, mean, number, numbers, percent, seconds


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


Cell = Callable[[Arm], str]


def table_of(scenario: Scenario) -> Table:
    """The table that belongs to the scenario's kind, best arm first."""
    columns = _COLUMNS[scenario.kind]
    arms = sorted(scenario.arms, key=_ORDER[scenario.kind])
    rows = tuple(tuple(show(arm) for show in columns.values()) for arm in arms)
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
    metrics = scenario.arms[0].records[0]["metrics"]
    name = metrics.get("protocol") or scenario.settings.get("protocol")
    networks, architecture = len(numbers(metrics.get("accuracies"))), metrics.get("architecture")
    return f"{name} protocol" + (f": {networks} × {architecture}" if networks and architecture else "")


def distil_accuracies(arm: Arm) -> list[float]:
    """Accuracy of every network of every seed."""
    return [value for record in arm.records for value in numbers(record["metrics"].get("accuracies"))]


def total_bytes(arm: Arm) -> list[float]:
    """Bytes up and down together, for each seed."""
    pairs = [(number(r["metrics"].get("bytes_up")), number(r["metrics"].get("bytes_down"))) for r in arm.records]
    return [up + down for up, down in pairs if up is not None and down is not None]


def final_memory_bytes(arm: Arm) -> float | None:
    """Bytes of the memory after the last experience, mean over seeds."""
    memories = [numbers(record["metrics"].get("memory_bytes")) for record in arm.records]
    return mean([memory[-1] for memory in memories if memory])


def memory_cpu_seconds(arm: Arm) -> float | None:
    """CPU-seconds that the memory took to take in an experience, mean over experiences and runs."""
    spent = [numbers(record["metrics"].get("memory_cpu_seconds")) for record in arm.records]
    return mean([value for one in spent for value in one])


def _size(arm: Arm) -> str:
    if arm.settings.get("byte_budget") is not None:
        return f"≤ {byte_size(number(arm.settings['byte_budget']))}"
    return f"{arm.settings.get('images_per_class', ABSENT)} ipc"


def _rejections(arm: Arm) -> str:
    lists = [record["metrics"].get("rejections") for record in arm.records]
    return str(sum(len(one) for one in lists if isinstance(one, list)))


def _rounds(arm: Arm) -> str:
    return str(arm.settings.get("rounds", ABSENT))


def _runs(arm: Arm) -> str:
    return str(len(arm.records))


def _count(arm: Arm, metric: str) -> str:
    value = mean(arm.values(metric))
    return ABSENT if value is None else f"{value:,.0f}"


def _bytes(metric: str) -> Cell:
    return lambda arm: byte_size(mean(arm.values(metric)))


def _seconds(metric: str) -> Cell:
    return lambda arm: seconds(mean(arm.values(metric)))


def _percent(metric: str) -> Cell:
    return lambda arm: percent(arm.values(metric))


def _chosen(arm: Arm) -> str:
    """What candidates differ in: "local learning rate 0.03, local epochs 2"."""
    candidates = arm.settings.get("candidates")
    others = [_flat(one) for one in candidates] if isinstance(candidates, list) else []
    chosen = _flat(arm.records[0]["metrics"].get("chosen"))
    differing = {name: value for name, value in chosen.items() if any(one.get(name) != value for one in others)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in differing.items()) or ABSENT


def _flat(values: Any) -> dict[str, Any]:
    """Settings by name, those of a method or strategy beside the others; results come from files."""
    found: dict[str, Any] = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        found.update(value if isinstance(value, dict) else {name: value})
    return found


def _of_candidates(arm: Arm) -> str:
    return " / ".join(percent([value]) for value in numbers(arm.records[0]["metrics"].get("accuracies")))


_COLUMNS: dict[str, dict[str, Cell]] = {
    "distil": {
        "method": lambda arm: arm.label,
        "size": _size,
        "payload": _bytes("payload_bytes"),
        "bits": lambda arm: str(arm.settings.get("bits", ABSENT)),
        "accuracy (%)": lambda arm: percent(distil_accuracies(arm)),
        "took": _seconds("distil_seconds"),
        "steps": lambda arm: _count(arm, "steps"),
        "seeds": _runs,
    },
    "federated": {
        "strategy": lambda arm: arm.label,
        "rounds": _rounds,
        "accuracy (%)": _percent("accuracy"),
        "up": _bytes("bytes_up"),
        "down": _bytes("bytes_down"),
        "clients": _seconds("slowest_client_seconds"),
        "server": _seconds("server_seconds"),
        "rejected": _rejections,
        "seeds": _runs,
    },
    TUNING: {
        "strategy": lambda arm: arm.label,
        "chosen": _chosen,
        "accuracy (%)": _percent("accuracy"),
        "all candidates (%)": _of_candidates,
    },
    "continual": {
        "strategy": lambda arm: arm.label,
        "accuracy (%)": _percent("average_accuracy"),
        "forgetting (%)": _percent("forgetting"),
        "memory": lambda arm: byte_size(final_memory_bytes(arm)),
        "taking in": lambda arm: seconds(memory_cpu_seconds(arm)),
        "replayed": lambda arm: _count(arm, "replayed"),
        "took": lambda arm: seconds(mean(arm.seconds)),
        "runs": _runs,
    },
    "federated-continual": {
        "strategy": lambda arm: arm.label,
        "rounds": _rounds,
        "accuracy (%)": _percent("average_accuracy"),
        "forgetting (%)": _percent("forgetting"),
        "up": _bytes("bytes_up"),
        "down": _bytes("bytes_down"),
        "server keeps": _bytes("server_bytes"),
        "clients keep": _bytes("client_bytes"),
        "took": lambda arm: seconds(mean(arm.seconds)),
        "rejected": _rejections,
        "runs": _runs,
    },
}


def _negative_mean(metric: str) -> Callable[[Arm], float]:
    return lambda arm: -(mean(arm.values(metric)) or 0.0)


_ORDER: dict[str, Callable[[Arm], Any]] = {
    "distil": lambda arm: (mean(arm.values("payload_bytes")) or 0.0, -(mean(distil_accuracies(arm)) or 0.0)),
    "federated": _negative_mean("accuracy"),
    TUNING: _negative_mean("accuracy"),
    "continual": _negative_mean("average_accuracy"),
    "federated-continual": _negative_mean("average_accuracy"),
}


_NOTES = {
    "distil": "Accuracy on real test data: mean ± standard deviation over all networks of all seeds. "
    "Payload: what would be sent, at the stated bits a value. ipc: images per class.",
    "federated": "Accuracy of the final model on central test data. Up, down: bytes of all clients and rounds. "
    "Clients: seconds of the slowest client of each round, summed. Rejected: answers that were not used.",
    TUNING: "The candidate with the best accuracy on held-out training data; it then runs on all training data.",
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
    if any(arm.label.endswith(REAL_SAMPLES_MARK) for arm in scenario.arms):
        notes.append(REAL_SAMPLES_NOTE)
    if any(record["metrics"].get(PRIVACY) for arm in scenario.arms for record in arm.records):
        notes.append("[ε, δ]: differentially private, for a single record added or removed; see docs/privacy.md.")
    return tuple(notes)
