"""What an accuracy costs in bytes: the first round of each strategy that is as good as FedAvg, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulations.running.records import Record
from simulations.tables.arms import Arm, Scenario
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, byte_size, mean, number

_REFERENCE = "fedavg"
_ROUNDS = (10, 20, 50)

Levels = Mapping[Any, float]
"""The accuracy to reach, in [0, 1], for each seed."""


@dataclass(frozen=True)
class Goal:
    """An accuracy that some arm had.

    Attributes:
        title: says whose, and when.
        levels: for each seed.
        bytes_: that it took that arm, mean over seeds.
    """

    title: str
    levels: Levels
    bytes_: float


def table_of_bytes(scenario: Scenario) -> Table | None:
    """Bytes up and down, all clients together, until each arm first reaches each goal; None without FedAvg.

    Goals are the accuracies of the first FedAvg arm after 10, 20 and 50 rounds, or after its last where it has fewer,
    and the best accuracy of an arm of a single round.
    """
    reference = next((arm for arm in scenario.arms if arm.settings.get("strategy") == _REFERENCE), None)
    if reference is None:
        return None
    goals = [*_of_rounds(reference), *_of_single_rounds(scenario)]
    if not goals:
        return None
    arms = sorted(scenario.arms, key=lambda arm: -(mean(arm.values("accuracy")) or 0.0))
    rows = tuple((arm.label, *(_cell(arm, goal) for goal in goals)) for arm in arms)
    notes = (
        "Bytes of all messages, up and down, until the accuracy was first reached, mean over seeds; in brackets how "
        "many times fewer than it took the one whose accuracy it is. Accuracies of single rounds go up and down: to "
        "be there first is not to stay.",
    )
    return Table("Bytes to reach an accuracy", ("strategy", *(goal.title for goal in goals)), rows, notes)


def rounds_of(record: Record) -> list[dict[str, Any]]:
    """The rounds in a federated result; results come from files, which may hold anything."""
    rounds = record["metrics"].get("rounds")
    return [one for one in rounds if isinstance(one, dict)] if isinstance(rounds, list) else []


def _of_rounds(arm: Arm) -> list[Goal]:
    last = min((len(rounds_of(record)) - 1 for record in arm.records), default=0)
    wanted = [count for count in _ROUNDS if count <= last] or [last]
    goals = [_goal(arm, f"{arm.label}, round {count}", count) for count in wanted if count > 0]
    return [goal for goal in goals if goal is not None]


def _of_single_rounds(scenario: Scenario) -> list[Goal]:
    goals = [_goal(arm, f"{arm.label}, 1 round", 1) for arm in scenario.arms if _is_single(arm)]
    return sorted((goal for goal in goals if goal is not None), key=lambda goal: -sum(goal.levels.values()))[:1]


def _is_single(arm: Arm) -> bool:
    """One round, and no ceiling: what those send is no answer to what is compared."""
    return arm.settings.get("rounds") == 1 and all(_bytes(record, 1) for record in arm.records) and _sends_down(arm)


def _sends_down(arm: Arm) -> bool:
    return all((number(record["metrics"].get("bytes_down")) or 0) > 0 for record in arm.records)


def _goal(arm: Arm, title: str, server_round: int) -> Goal | None:
    levels = {_seed(record): _accuracy(record, server_round) for record in arm.records}
    known = {seed: level for seed, level in levels.items() if level is not None}
    taken = mean([value for record in arm.records if (value := _bytes(record, server_round)) is not None])
    if len(known) < len(levels) or not known or taken is None:
        return None
    return Goal(f"{title} ({100 * (mean(list(known.values())) or 0):.1f} %)", known, taken)


def _cell(arm: Arm, goal: Goal) -> str:
    """Mean over the seeds that arm and goal have in common, if all of them get there."""
    shared = [record for record in arm.records if _seed(record) in goal.levels]
    taken = [_bytes_to(record, goal.levels[_seed(record)]) for record in shared]
    reached = [value for value in taken if value is not None]
    if not shared:
        return ABSENT
    if len(reached) < len(taken):
        return "not reached" if not reached else f"reached by {len(reached)} of {len(taken)} seeds"
    value = mean(reached)
    return f"{byte_size(value)} ({_times(goal.bytes_ / value)})" if value else ABSENT


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def _bytes_to(record: Record, level: float) -> float | None:
    for server_round in range(1, len(rounds_of(record))):
        accuracy = _accuracy(record, server_round)
        if accuracy is not None and accuracy >= level:
            return _bytes(record, server_round)
    return None


def _accuracy(record: Record, server_round: int) -> float | None:
    rounds = rounds_of(record)
    return number(rounds[server_round].get("accuracy")) if server_round < len(rounds) else None


def _bytes(record: Record, server_round: int) -> float | None:
    rounds = rounds_of(record)
    if server_round >= len(rounds):
        return None
    up, down = (number(rounds[server_round].get(name)) for name in ("bytes_up", "bytes_down"))
    return None if up is None or down is None else up + down


def _seed(record: Record) -> Any:
    return record["settings"].get("seed")
