"""Privacy and utility: what a guarantee costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.report.blocks import Chapter, Grid, Plot, Section
from simulations.report.epsilon import drawing_of_privacy
from simulations.report.source import Sourced
from simulations.tables.privacy_curves import privacy_table, privacy_tasks

_CAPTION = "Further left is more private. Dotted: methods that claim nothing, of the same size."


def privacy_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy against ε for all tasks in which something was released privately."""
    tasks = privacy_tasks(source.record for source in sources)
    if not tasks:
        return None
    return Section(
        "privacy",
        "Privacy and accuracy",
        "Differential privacy of every record, from noise: the smaller ε, the stronger the promise and the more noise.",
        [
            Chapter(
                "Accuracy against ε",
                [
                    Plot("Accuracy against ε", drawing_of_privacy(tasks), _CAPTION),
                    *(Grid(privacy_table(task)) for task in tasks),
                ],
            )
        ],
    )
