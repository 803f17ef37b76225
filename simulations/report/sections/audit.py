"""Privacy: what attacks find in releases."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.audit.settings import KIND
from simulations.audit.tables import audit_tables
from simulations.report.blocks import Block, Chapter, Grid, Picture, Pictures, Plot, Section
from simulations.report.roc import drawing_of_curves
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced, picture_of
from simulations.tables.arms import Scenario, scenarios
from simulations.tables.comparison import describe


def audit_section(sources: Sequence[Sourced]) -> Section | None:
    """Membership inference, near copies and bounds of ε for each task."""
    found = scenarios([source.record for source in sources], KIND)
    if not found:
        return None
    return Section(
        "audit",
        "Privacy audits",
        "Who was a member of the data behind a release? Attacks that succeed prove a leak; attacks that fail prove "
        "nothing.",
        [Chapter(describe(scenario), _blocks(scenario, sources)) for scenario in found],
    )


def _blocks(scenario: Scenario, sources: Sequence[Sourced]) -> list[Block]:
    by_key = {source.record["key"]: source for source in sources}
    records = [record for arm in scenario.arms for record in arm.records]
    blocks: list[Block] = [Grid(table) for table in audit_tables(records)]
    if drawing := drawing_of_curves(scenario):
        caption = (
            "For each release the attack of the largest area; dotted: guessing. Mean over releases of the first seed."
        )
        blocks.append(Plot("Members found against false alarms", drawing, caption))
    pictures = []
    for arm in scenario.arms:
        found = picture_of(by_key[arm.records[0]["key"]])
        if found is not None:
            pictures.append(Picture(arm.label, found[0], "", found[1]))
    if pictures:
        caption = (
            "Pairs of a released sample and, to its right, the member nearest to it; the closest five of each class."
        )
        blocks.append(Pictures("Released samples beside members", tuple(pictures), caption))
    return [*blocks, settings_facts(scenario)]
