"""Continual learning: what is still known of every experience."""

from __future__ import annotations

from collections.abc import Sequence

from simulations.report.blocks import Block, Chapter, Grid, HeatMap, HeatMaps, Section
from simulations.report.heat import heat_cell
from simulations.report.sections.continual_costs import cost_plots
from simulations.report.sections.continual_stages import stage_plots
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced
from simulations.tables.accuracy_matrices import matrices_of
from simulations.tables.arms import Arm, Scenario, scenarios
from simulations.tables.comparison import describe, table_of
from simulations.tables.formats import mean, percent


def continual_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy matrices, average accuracy and forgetting, for each stream of experiences."""
    found = scenarios([source.record for source in sources], "continual")
    if not found:
        return None
    return Section(
        "continual",
        "Continual learning",
        "Experiences come one after the other, and old data are gone unless a memory keeps something of them. "
        "Forgetting is the best earlier accuracy on an experience minus the final one (Chaudhry et al. 2018), "
        "averaged over all experiences but the last.",
        [Chapter(describe(scenario), _blocks(scenario)) for scenario in found],
    )


def _blocks(scenario: Scenario) -> list[Block]:
    runs = scenario.seed_count
    caption = f"Mean of up to {runs} runs, bars show the standard deviation." if runs > 1 else "One run."
    blocks: list[Block] = [Grid(table_of(scenario))]
    blocks += stage_plots(scenario, caption)
    blocks += cost_plots(scenario, caption)
    maps = tuple(_heat_map(arm) for arm in scenario.arms if matrices_of(arm))
    if maps:
        blocks.append(
            HeatMaps(
                "Accuracy matrix",
                maps,
                row_axis="after experience",
                column_axis="accuracy (%) on the test data of experience",
                caption="Mean over runs. Right of the diagonal are experiences that were still to come.",
            )
        )
    return [*blocks, settings_facts(scenario)]


def _heat_map(arm: Arm) -> HeatMap:
    matrices = matrices_of(arm)
    shape = matrices[0]
    averaged = [
        [mean([one[i][j] for one in matrices if i < len(one) and j < len(one[i])]) for j in range(len(row))]
        for i, row in enumerate(shape)
    ]
    names = [str(i + 1) for i in range(len(shape))] if len(shape) == len(shape[0]) else ["all"] * len(shape)
    rows = tuple((name, tuple(heat_cell(value) for value in row)) for name, row in zip(names, averaged, strict=True))
    average = percent(arm.values("average_accuracy"))
    return HeatMap(f"{arm.label}: {average} %", tuple(str(j + 1) for j in range(len(shape[0]))), rows)
