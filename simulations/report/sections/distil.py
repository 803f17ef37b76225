"""Distillation alone: how much a few samples teach, and what they look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.report.blocks import Block, Chapter, Grid, Picture, Pictures, Plot, Section
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
    use_seconds_axis,
)
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced, picture_of
from simulations.tables.arms import Arm, Scenario, scenarios
from simulations.tables.comparison import describe, distil_accuracies, table_of
from simulations.tables.formats import byte_size, mean, percent, spread

_CHEAP_SECONDS = 0.1  # selections of real samples cost nothing worth drawing


def distil_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy at equal bytes and the synthetic images, for each data set and way of judging."""
    found = scenarios([source.record for source in sources], "distil")
    if not found:
        return None
    return Section(
        "distil",
        "Distillation",
        "Networks are trained from scratch on the few samples alone and tested on real data. What is judged was "
        "encoded at the stated number of bits and decoded again; the payload is what would be sent.",
        [Chapter(describe(scenario), _blocks(scenario, sources)) for scenario in found],
    )


def _blocks(scenario: Scenario, sources: Sequence[Sourced]) -> list[Block]:
    blocks: list[Block] = [Grid(table_of(scenario))]
    caption = "Mean and standard deviation over all networks of all seeds."
    with style():
        for title, draw in (
            ("Accuracy against payload", _against_bytes),
            ("Accuracy against CPU time", _against_cpu_seconds),
        ):
            if svg := draw(scenario):
                blocks.append(Plot(title, svg, caption))
    pictures = tuple(picture for arm in scenario.arms if (picture := _picture(arm, sources)) is not None)
    if pictures:
        caption = (
            "One row for each class, up to ten images each, as decoded; values outside the data's range are clipped."
        )
        blocks.append(Pictures("The samples themselves", pictures, caption))
    return [*blocks, settings_facts(scenario)]


def _against_bytes(scenario: Scenario) -> str:
    """A line for each method through its sizes; nothing where all arms have the same size."""
    points = _points(scenario, "payload_bytes")
    if len({round(size) for line in points.values() for size, _, _ in line}) < 2:
        return ""
    figure, axes = _lines(points)
    use_byte_axis(axes, "payload (bytes, log scale)")
    show_legend(figure, axes)
    return to_svg(figure, "Accuracy against payload bytes")


def _against_cpu_seconds(scenario: Scenario) -> str:
    """A mark for each arm, one colour for each method; nothing where fewer than two arms were distilled at a cost."""
    points = _points(scenario, "distil_cpu_seconds")
    points = {
        method: dear for method, line in points.items() if (dear := [one for one in line if one[0] >= _CHEAP_SECONDS])
    }
    if sum(map(len, points.values())) < 2:
        return ""
    figure, axes = _lines(points, joined=False)
    use_seconds_axis(axes, "CPU-seconds of the distillation (log scale)")
    show_legend(figure, axes)
    return to_svg(figure, "Accuracy against CPU-seconds")


def _points(scenario: Scenario, metric: str) -> dict[str, list[Point]]:
    """For each method, the metric of each arm with its accuracy."""
    points = defaultdict(list)
    for arm in scenario.arms:
        place, accuracies = mean(arm.values(metric)), [100 * value for value in distil_accuracies(arm)]
        if place and accuracies:
            points[str(arm.settings.get("method"))].append((place, mean(accuracies) or 0.0, spread(accuracies)))
    return points


def _lines(points: Mapping[str, list[Point]], *, joined: bool = True) -> tuple[Figure, Axes]:
    figure = new_figure(10.5, 4.0)
    axes = figure.subplots()
    for index, (method, line) in enumerate(points.items()):
        draw_points(axes, sorted(line), method, look(index) if joined else {**look(index), "linestyle": ""})
    use_percent_axis(axes, "test accuracy (%)")
    return figure, axes


def _picture(arm: Arm, sources: Sequence[Sourced]) -> Picture | None:
    """The picture of the arm's first seed that has one."""
    by_key = {source.record["key"]: source for source in sources}
    for record in arm.records:
        found = picture_of(by_key[record["key"]])
        if found is not None:
            details = [f"{percent(distil_accuracies(arm))} %", byte_size(mean(arm.values("payload_bytes")))]
            details.append(f"seed {record['settings'].get('seed')}")
            return Picture(arm.label, found[0], " · ".join(details), found[1])
    return None
