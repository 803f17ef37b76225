"""Arms put in rows: those that differ in their size or their budget alone belong to one curve."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from simulations.tables.arms import Arm, Scenario, labels_of

SIZES = frozenset({"images_per_class", "byte_budget"})
BUDGETS = frozenset({"distil_steps", "distil_seconds"})


@dataclass(frozen=True)
class Series:
    """Arms that differ along some settings alone.

    Attributes:
        label: tells the series from the others of its scenario.
        arms: at least one.
    """

    label: str
    arms: tuple[Arm, ...]


def series_along(scenario: Scenario, along: Collection[str]) -> list[Series]:
    """The scenario's arms as series that differ in settings ``along`` alone, in the order of their first arms."""
    groups: list[list[Arm]] = []
    for arm in scenario.arms:
        akin = next((group for group in groups if _shared(group[0], along) == _shared(arm, along)), None)
        if akin is None:
            groups.append([arm])
        else:
            akin.append(arm)
    labels = labels_of(scenario.kind, [group[0].records for group in groups], along)
    return [Series(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def _shared(arm: Arm, along: Collection[str]) -> dict[str, object]:
    return {name: value for name, value in arm.settings.items() if name not in along}
