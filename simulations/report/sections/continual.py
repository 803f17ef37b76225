"""Continual learning: what is still known of every experience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulations.report.blocks import Block, Chapter, Grid, HeatMap, HeatMaps, Plot, Section
from simulations.report.drawing import look, new_figure, show_legend, style, to_svg, use_byte_axis, use_percent_axis
from simulations.report.heat import heat_cell
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced
from simulations.tables.arms import Arm, Scenario, scenarios
from simulations.tables.comparison import describe, final_memory_bytes, table_of
from simulations.tables.formats import mean, numbers, percent, spread

Matrix = list[list[float]]
_BARS_SHARE = 0.8


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
    blocks: list[Block] = [Grid(table_of(scenario))]
    seeds = scenario.seed_count
    caption = f"Mean of up to {seeds} seeds, bars show the standard deviation." if seeds > 1 else "One seed."
    with style():
        svg = _average_accuracy(scenario)
        if svg:
            blocks.append(Plot("Average accuracy on what was seen so far", svg, caption))
        svg = _forgetting(scenario)
        if svg:
            blocks.append(Plot("Forgetting of each experience", svg, caption))
        svg = _against_bytes(scenario)
        if svg:
            blocks.append(Plot("Average accuracy against bytes kept", svg, f"After the last experience. {caption}"))
    maps = tuple(_heat_map(arm) for arm in scenario.arms if _matrices(arm))
    if maps:
        blocks.append(
            HeatMaps(
                "Accuracy matrix",
                maps,
                row_axis="after experience",
                column_axis="accuracy (%) on the test data of experience",
                caption="Mean over seeds. Right of the diagonal are experiences that were still to come.",
            )
        )
    return [*blocks, settings_facts(scenario)]


def _average_accuracy(scenario: Scenario) -> str:
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    stages = 0
    for index, arm in enumerate(scenario.arms):
        curves = [_seen_so_far(matrix) for matrix in _matrices(arm) if len(matrix) > 1]
        if curves:
            columns = [[100 * value for value in column] for column in zip(*curves, strict=False)]
            places, stages = range(1, len(columns) + 1), max(stages, len(columns))
            deviations = [spread(column) for column in columns]
            axes.errorbar(
                places,
                [mean(column) or 0.0 for column in columns],
                yerr=[value or 0.0 for value in deviations] if any(deviations) else None,
                label=arm.label,
                **look(index),
            )
        elif arm.values("average_accuracy"):
            level = 100 * (mean(arm.values("average_accuracy")) or 0.0)
            axes.axhline(level, color=look(index)["color"], linestyle=(0, (6, 3)), label=f"{arm.label} (all at once)")
    if not stages:
        return ""
    axes.set_xticks(range(1, stages + 1))
    axes.set_ylim(0, 103)
    axes.set_xlabel("experiences trained on")
    use_percent_axis(axes, "mean test accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy after each experience")


def _forgetting(scenario: Scenario) -> str:
    arms = [(arm, [_forgotten(matrix) for matrix in _matrices(arm) if len(matrix) > 1]) for arm in scenario.arms]
    shown = [(index, arm, lists) for index, (arm, lists) in enumerate(arms) if lists]
    experiences = max((len(one) for _, _, lists in shown for one in lists), default=0)
    if not experiences:
        return ""
    figure = new_figure(10.5, 3.6)
    axes = figure.subplots()
    width = _BARS_SHARE / len(shown)
    for position, (index, arm, lists) in enumerate(shown):
        columns = [[100 * value for value in column] for column in zip(*lists, strict=False)]
        places = [1 + i - _BARS_SHARE / 2 + width * (position + 0.5) for i in range(len(columns))]
        deviations = [spread(column) for column in columns]
        axes.bar(
            places,
            [mean(column) or 0.0 for column in columns],
            width=0.92 * width,
            yerr=[value or 0.0 for value in deviations] if any(deviations) else None,
            color=look(index)["color"],
            ecolor="#020202",
            label=arm.label,
        )
    axes.axhline(0, color="#020202", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(1, experiences + 1))
    axes.set_xlabel("experience")
    axes.set_ylabel("forgetting (percentage points)")
    show_legend(figure, axes)
    return to_svg(figure, "Forgetting of each experience")


def _against_bytes(scenario: Scenario) -> str:
    """A mark for each arm that keeps something; nothing where fewer than two do."""
    placed = [(index, arm, final_memory_bytes(arm) or 0.0) for index, arm in enumerate(scenario.arms)]
    kept = [one for one in placed if one[2] > 0 and one[1].values("average_accuracy")]
    if len(kept) < 2:
        return ""
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    for index, arm, size in kept:
        values = [100 * value for value in arm.values("average_accuracy")]
        error = spread(values) or None
        axes.errorbar(size, mean(values) or 0.0, yerr=error, label=arm.label, **{**look(index), "linestyle": ""})
    use_byte_axis(axes, "bytes kept beside the model (log scale)")
    use_percent_axis(axes, "average accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy against bytes kept")


def _heat_map(arm: Arm) -> HeatMap:
    matrices = _matrices(arm)
    shape = matrices[0]
    averaged = [
        [mean([one[i][j] for one in matrices if i < len(one) and j < len(one[i])]) for j in range(len(row))]
        for i, row in enumerate(shape)
    ]
    names = [str(i + 1) for i in range(len(shape))] if len(shape) == len(shape[0]) else ["all"] * len(shape)
    rows = tuple((name, tuple(heat_cell(value) for value in row)) for name, row in zip(names, averaged, strict=True))
    average = percent(arm.values("average_accuracy"))
    return HeatMap(f"{arm.label}: {average} %", tuple(str(j + 1) for j in range(len(shape[0]))), rows)


def _matrices(arm: Arm) -> list[Matrix]:
    """The well-formed accuracy matrices of all seeds."""
    return [matrix for matrix in (_matrix(record["metrics"].get("matrix")) for record in arm.records) if matrix]


def _matrix(value: Any) -> Matrix | None:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return None
    rows = [numbers(row) for row in value]
    regular = all(len(row) == len(value[0]) for row in value) and [len(r) for r in rows] == [len(r) for r in value]
    return rows if regular and (len(rows) in (1, len(rows[0]))) else None


def _seen_so_far(matrix: Matrix) -> list[float]:
    """After each experience, the mean accuracy on those trained on by then."""
    return [mean(row[: stage + 1]) or 0.0 for stage, row in enumerate(matrix)]


def _forgotten(matrix: Matrix) -> list[float]:
    """For each experience but the last: best earlier accuracy minus the final one."""
    last = len(matrix) - 1
    return [max(matrix[i][j] for i in range(j, last)) - matrix[last][j] for j in range(last)]
