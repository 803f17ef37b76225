"""Plots of a stream of experiences: what is known after each, and what is forgotten of each."""

from __future__ import annotations

from simulations.report.blocks import Plot
from simulations.report.drawing import (
    draw_level,
    draw_points,
    look,
    new_figure,
    show_legend,
    style,
    to_svg,
    use_stage_axes,
)
from simulations.tables.accuracy_matrices import forgotten, matrices_of, seen_so_far
from simulations.tables.arms import Scenario
from simulations.tables.formats import mean, spread

_BARS_SHARE = 0.8


def stage_plots(scenario: Scenario, caption: str) -> list[Plot]:
    """Those plots for which the scenario has results."""
    drawn = {
        "Average accuracy on what was seen so far": _average_accuracy,
        "Forgetting of each experience": _forgetting,
    }
    with style():
        return [Plot(title, svg, caption) for title, draw in drawn.items() if (svg := draw(scenario))]


def _average_accuracy(scenario: Scenario) -> str:
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    stages = 0
    for index, arm in enumerate(scenario.arms):
        curves = [seen_so_far(matrix) for matrix in matrices_of(arm) if len(matrix) > 1]
        if curves:
            columns = [[100 * value for value in column] for column in zip(*curves, strict=False)]
            points = [(float(stage), mean(one) or 0.0, spread(one)) for stage, one in enumerate(columns, 1)]
            draw_points(axes, points, arm.label, look(index))
            stages = max(stages, len(columns))
        elif arm.values("average_accuracy"):
            level = 100 * (mean(arm.values("average_accuracy")) or 0.0)
            draw_level(axes, level, f"{arm.label} (all at once)", index)
    if not stages:
        return ""
    use_stage_axes(axes, stages, "experiences trained on")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy after each experience")


def _forgetting(scenario: Scenario) -> str:
    arms = [(arm, [forgotten(matrix) for matrix in matrices_of(arm) if len(matrix) > 1]) for arm in scenario.arms]
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
            yerr=deviations if any(deviations) else None,
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
