"""Federated results: bytes to reach an accuracy, and attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulations.formats import ABSENT, byte_size, mean, number, percent
from simulations.running.runs import Record
from simulations.tables.comparison import Table
from simulations.tables.variants import Scenario, Variant, attack_of

_REFERENCE = "fedavg"
_ROUNDS = (10, 20, 50)

Levels = Mapping[Any, float]
"""The accuracy to reach, in [0, 1], for each seed."""


@dataclass(frozen=True)
class Goal:
    """An accuracy that some variant had.

    Attributes:
        title: says whose, and when.
        levels: for each seed.
        bytes_: that it took that variant, mean over seeds.
    """

    title: str
    levels: Levels
    bytes_: float


def table_of_bytes(scenario: Scenario) -> Table | None:
    """Bytes up and down, all clients together, until each variant first reaches each goal; None without FedAvg.

    Goals are the accuracies of the first FedAvg variant after 10, 20 and 50 rounds, or after its last if it has less,
    and the best accuracy of a variant of a single round.
    """
    reference = next((variant for variant in scenario.variants if variant.settings.get("strategy") == _REFERENCE), None)
    if reference is None:
        return None
    goals = [*_of_rounds(reference), *_of_single_rounds(scenario)]
    if not goals:
        return None
    variants = sorted(scenario.variants, key=lambda variant: -(mean(variant.values("accuracy")) or 0.0))
    rows = tuple((variant.label, *(_cell(variant, goal) for goal in goals)) for variant in variants)
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


def _of_rounds(variant: Variant) -> list[Goal]:
    last = min((len(rounds_of(record)) - 1 for record in variant.records), default=0)
    wanted = [count for count in _ROUNDS if count <= last] or [last]
    goals = [_goal(variant, f"{variant.label}, round {count}", count) for count in wanted if count > 0]
    return [goal for goal in goals if goal is not None]


def _of_single_rounds(scenario: Scenario) -> list[Goal]:
    goals = [_goal(variant, f"{variant.label}, 1 round", 1) for variant in scenario.variants if _is_single(variant)]
    return sorted((goal for goal in goals if goal is not None), key=lambda goal: -sum(goal.levels.values()))[:1]


def _is_single(variant: Variant) -> bool:
    """One round, and no ceiling: what those send is no answer to what is compared."""
    return (
        variant.settings.get("rounds") == 1
        and all(_bytes(record, 1) for record in variant.records)
        and _sends_down(variant)
    )


def _sends_down(variant: Variant) -> bool:
    return all((number(record["metrics"].get("bytes_down")) or 0) > 0 for record in variant.records)


def _goal(variant: Variant, title: str, server_round: int) -> Goal | None:
    levels = {_seed(record): _accuracy(record, server_round) for record in variant.records}
    known = {seed: level for seed, level in levels.items() if level is not None}
    taken = mean([value for record in variant.records if (value := _bytes(record, server_round)) is not None])
    if len(known) < len(levels) or not known or taken is None:
        return None
    return Goal(f"{title} ({100 * (mean(list(known.values())) or 0):.1f} %)", known, taken)


def _cell(variant: Variant, goal: Goal) -> str:
    """Mean over the seeds that variant and goal have in common, if all of them get there."""
    shared = [record for record in variant.records if _seed(record) in goal.levels]
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


_OF_ATTACKS = ("attack", "attack_settings", "attackers")


def table_of_attacks(scenario: Scenario) -> Table | None:
    """Accuracies without and under every attack; None where nobody attacked."""
    attacks = list(dict.fromkeys(attack_of(variant.settings) for variant in scenario.variants))
    if not any(attacks):
        return None
    attacks = ["", *(attack for attack in attacks if attack)]
    rows: dict[str, dict[str, Variant]] = {}
    names: dict[str, str] = {}
    for variant in scenario.variants:
        defended = {name: value for name, value in variant.settings.items() if name not in _OF_ATTACKS}
        key = json.dumps(defended, sort_keys=True)
        rows.setdefault(key, {})[attack_of(variant.settings)] = variant
        names[key] = _name(variant)
    texts = [
        (names[key], *(_poisoning_cell(by_attack.get(attack), by_attack.get("")) for attack in attacks))
        for key, by_attack in rows.items()
    ]
    notes = (
        "Accuracy on central test data, mean over seeds; in brackets the points lost to the attack. Success: how often "
        "the attack's target is what the model says where the attacker wants it. Dropped: samples of attackers, and of "
        "honest clients, that a defence threw out, all seeds together.",
    )
    columns = ("strategy", *(attack or "no attack" for attack in attacks))
    return Table("Accuracy (%) under attack", columns, tuple(texts), notes)


def _name(variant: Variant) -> str:
    under = attack_of(variant.settings)
    return variant.label.replace(f" under {under}", "", 1) if under else variant.label


def _poisoning_cell(variant: Variant | None, without: Variant | None) -> str:
    if variant is None:
        return ABSENT
    parts = [percent(variant.values("accuracy")), *_loss(variant, without), *_success(variant), *_dropped(variant)]
    return " ".join(parts)


def _loss(variant: Variant, without: Variant | None) -> list[str]:
    reached = mean(variant.values("accuracy"))
    clean = None if without is None or without is variant else mean(without.values("accuracy"))
    return [] if reached is None or clean is None else [f"({100 * (reached - clean):+.1f})"]


def _success(variant: Variant) -> list[str]:
    rate = mean(variant.values("success_rate"))
    return [] if rate is None else [f"success {100 * rate:.0f} %"]


def _dropped(variant: Variant) -> list[str]:
    if not _defends(variant.settings):
        return []
    malicious, honest = (sum(variant.values(name)) for name in ("malicious_dropped", "honest_dropped"))
    return [f"dropped {malicious:.0f} and {honest:.0f}"]


def _defends(settings: Mapping[str, Any]) -> bool:
    own = settings.get("strategy_settings")
    return isinstance(own, dict) and bool(own.get("defence"))
