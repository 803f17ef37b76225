"""What attacks cost: each way of defending as a row, each attack as a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simulations.tables.arms import Arm, Scenario, attack_of
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, mean, percent

_OF_ATTACKS = ("attack", "attack_settings", "attackers")


def table_of_attacks(scenario: Scenario) -> Table | None:
    """Accuracies without and under every attack; None where nobody attacked."""
    attacks = list(dict.fromkeys(attack_of(arm.settings) for arm in scenario.arms))
    if not any(attacks):
        return None
    attacks = ["", *(attack for attack in attacks if attack)]
    rows: dict[str, dict[str, Arm]] = {}
    names: dict[str, str] = {}
    for arm in scenario.arms:
        defended = {name: value for name, value in arm.settings.items() if name not in _OF_ATTACKS}
        key = json.dumps(defended, sort_keys=True)
        rows.setdefault(key, {})[attack_of(arm.settings)] = arm
        names[key] = _name(arm)
    texts = [
        (names[key], *(_cell(by_attack.get(attack), by_attack.get("")) for attack in attacks))
        for key, by_attack in rows.items()
    ]
    notes = (
        "Accuracy on central test data, mean over seeds; in brackets the points lost to the attack. Success: how often "
        "the attack's target is what the model says where the attacker wants it. Dropped: samples of attackers, and of "
        "honest clients, that a defence threw out, all seeds together.",
    )
    columns = ("strategy", *(attack or "no attack" for attack in attacks))
    return Table("Accuracy (%) under attack", columns, tuple(texts), notes)


def _name(arm: Arm) -> str:
    under = attack_of(arm.settings)
    return arm.label.replace(f" under {under}", "", 1) if under else arm.label


def _cell(arm: Arm | None, without: Arm | None) -> str:
    if arm is None:
        return ABSENT
    parts = [percent(arm.values("accuracy")), *_loss(arm, without), *_success(arm), *_dropped(arm)]
    return " ".join(parts)


def _loss(arm: Arm, without: Arm | None) -> list[str]:
    reached = mean(arm.values("accuracy"))
    clean = None if without is None or without is arm else mean(without.values("accuracy"))
    return [] if reached is None or clean is None else [f"({100 * (reached - clean):+.1f})"]


def _success(arm: Arm) -> list[str]:
    rate = mean(arm.values("success_rate"))
    return [] if rate is None else [f"success {100 * rate:.0f} %"]


def _dropped(arm: Arm) -> list[str]:
    if not _defends(arm.settings):
        return []
    malicious, honest = (sum(arm.values(name)) for name in ("malicious_dropped", "honest_dropped"))
    return [f"dropped {malicious:.0f} and {honest:.0f}"]


def _defends(settings: Mapping[str, Any]) -> bool:
    own = settings.get("strategy_settings")
    return isinstance(own, dict) and bool(own.get("defence"))
