"""Federated continual learning: what the global model still knows, and what it cost to let it know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulations.report.blocks import Block, Chapter, Grid, HeatMap, HeatMaps, Plot, Section
from simulations.report.drawing import (
    Point,
    draw_points,
    look,
    new_figure,
    show_legend,
    style,
    to_svg,
    use_byte_axis,
    use_percent_axis,
    use_stage_axes,
)
from simulations.report.heat import heat_cell
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced
from simulations.tables.arms import Arm, Scenario, scenarios
from simulations.tables.comparison import describe, table_of
from simulations.tables.formats import mean, number, spread


def federated_continual_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy by stage, bytes, and accuracy matrices, for each way in which clients live through a stream."""
    found = scenarios([source.record for source in sources], "federated-continual")
    if not found:
        return None
    return Section(
        "federated-continual",
        "Federated continual learning",
        "Clients live through streams of experiences, come late or leave. At every stage they send sets, sums or "
        "models; the global model is tested on all experiences. Arms named joint take all data seen so far as they "
        "are: ceilings.",
        [Chapter(describe(scenario), _blocks(scenario)) for scenario in found],
    )


def _blocks(scenario: Scenario) -> list[Block]:
    blocks: list[Block] = [Grid(table_of(scenario))]
    seeds = scenario.seed_count
    caption = f"Mean of up to {seeds} seeds, bars show the standard deviation." if seeds > 1 else "One seed."
    with style():
        if svg := _by_stage(scenario):
            blocks.append(Plot("Average accuracy on what was seen so far", svg, caption))
        if svg := _against_bytes(scenario):
            blocks.append(Plot("Average accuracy against bytes", svg, f"After the last stage. {caption}"))
    if maps := tuple(_heat_map(arm) for arm in scenario.arms if _rows(arm)):
        blocks.append(
            HeatMaps(
                "Global accuracy matrix",
                maps,
                row_axis="after stage",
                column_axis="accuracy (%) on the test data of experience",
                caption="Mean over seeds. Experiences that nobody had met by then are still to come.",
            )
        )
    return [*blocks, settings_facts(scenario)]


def _by_stage(scenario: Scenario) -> str:
    curves = [(index, arm, _curve(arm)) for index, arm in enumerate(scenario.arms)]
    shown = [one for one in curves if one[2]]
    if not shown:
        return ""
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    for index, arm, curve in shown:
        draw_points(axes, curve, arm.label, look(index))
    use_stage_axes(axes, max(len(curve) for _, _, curve in shown), "stage")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy after each stage")


def _against_bytes(scenario: Scenario) -> str:
    """Two panels: what was sent both ways, and what is kept beside the models."""
    figure = new_figure(10.5, 4.0)
    panels = figure.subplots(1, 2, sharey=True)
    kinds = {
        "Sent, both ways": ("bytes_up", "bytes_down"),
        "Kept, by server and clients": ("server_bytes", "client_bytes"),
    }
    drawn = False
    for axes, (title, metrics) in zip(panels, kinds.items(), strict=True):
        for index, arm in enumerate(scenario.arms):
            size = sum(mean(arm.values(metric)) or 0.0 for metric in metrics)
            values = [100 * value for value in arm.values("average_accuracy")]
            if size > 0 and values:
                point = (size, mean(values) or 0.0, spread(values))
                draw_points(axes, [point], arm.label, {**look(index), "linestyle": ""})
                drawn = True
        axes.set_title(title)
        use_byte_axis(axes, "bytes of all clients and stages (log scale)")
    use_percent_axis(panels[0], "average accuracy (%)")
    show_legend(figure, panels[0])
    return to_svg(figure, "Average accuracy against bytes sent and kept") if drawn else ""


def _heat_map(arm: Arm) -> HeatMap:
    matrices = _rows(arm)
    stages, experiences = len(matrices[0]), len(matrices[0][0])
    averaged = [[mean([one[i][j] for one in matrices]) for j in range(experiences)] for i in range(stages)]
    rows = tuple((str(i + 1), tuple(heat_cell(value) for value in row)) for i, row in enumerate(averaged))
    average = 100 * (mean(arm.values("average_accuracy")) or 0.0)
    return HeatMap(f"{arm.label}: {average:.1f} %", tuple(str(j + 1) for j in range(experiences)), rows)


def _rows(arm: Arm) -> list[list[list[float]]]:
    """The well-formed accuracy matrices of all seeds; those that differ in shape from the first are left out."""
    found = [matrix for record in arm.records if (matrix := _matrix(record["metrics"].get("matrix")))]
    return [one for one in found if (len(one), len(one[0])) == (len(found[0]), len(found[0][0]))]


def _matrix(value: Any) -> list[list[float]] | None:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        return None
    rows = [[number(one) for one in row] for row in value]
    if any(len(row) != len(rows[0]) for row in rows):
        return None
    whole = [[one for one in row if one is not None] for row in rows]
    return whole if [len(row) for row in whole] == [len(row) for row in rows] else None


def _curve(arm: Arm) -> list[Point]:
    """By stage: the mean over seeds, and the standard deviation."""
    lists = [record["metrics"].get("average_by_stage") for record in arm.records]
    values = [[number(one) for one in found] for found in lists if isinstance(found, list)]
    whole = [[100 * one for one in found if one is not None] for found in values if None not in found]
    columns = [list(column) for column in zip(*whole, strict=False)]
    return [(float(stage), mean(column) or 0.0, spread(column)) for stage, column in enumerate(columns, 1)]
