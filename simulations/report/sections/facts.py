"""The settings behind a scenario, so that a reader can repeat it."""

from __future__ import annotations

import json
from typing import Any

from simulations.report.blocks import ClientReport
from simulations.tables.arms import REPEATED, Scenario
from simulations.tables.comparison import Table


def settings_facts(scenario: Scenario) -> ClientReport:
    """What all arms share, and a table of what they differ in."""
    first = scenario.arms[0].settings
    shared = tuple((name, _show(value)) for name, value in first.items() if name not in scenario.varying)
    records = [record for arm in scenario.arms for record in arm.records]
    repeated = tuple(
        (f"{name}s", ", ".join(sorted({_show(record["settings"].get(name)) for record in records})))
        for name in REPEATED
        if any(name in record["settings"] for record in records)
    )
    rows = tuple((arm.label, *(_show(arm.settings.get(name)) for name in scenario.varying)) for arm in scenario.arms)
    differing = Table("Where arms differ", ("arm", *scenario.varying), rows) if scenario.varying else None
    return ClientReport("All settings", (*shared, *repeated), differing)


def _show(value: Any) -> str:
    if value is None:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
