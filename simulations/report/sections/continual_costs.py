"""Plots of what a memory costs: average accuracy against the bytes it takes, and against the seconds it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulations.report.blocks import Plot
from simulations.report.drawing import (
    Point,
    draw_level,
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
from simulations.tables.arms import Arm, Scenario
from simulations.tables.comparison import final_memory_bytes, memory_cpu_seconds
from simulations.tables.formats import byte_size, mean, number, plural, seconds, spread
from simulations.tables.series import BUDGETS, SIZES, Series, series_along
from strategies.continual.settings import uses_method

Cost = Callable[[Arm], float | None]


def cost_plots(scenario: Scenario, caption: str) -> list[Plot]:
    """Those plots for which the scenario has results: bytes once, seconds for each size of the memory."""
    plots = []
    with style():
        if svg := _against_bytes(scenario):
            told = f"After the last experience; of several budgets of distilling the largest. {caption}"
            plots.append(Plot("Average accuracy against bytes kept", svg, told))
        for size in series_along(scenario, {name for name in scenario.varying if name not in SIZES}):
            if svg := _against_seconds(Scenario(scenario.kind, scenario.settings, size.arms)):
                title = f"Average accuracy against seconds of distilling, {_size_of(size.arms[0])}"
                plots.append(Plot(title, svg, f"Dashed: memories that distil nothing. {caption}"))
    return plots


def _against_bytes(scenario: Scenario) -> str:
    """A line for each strategy through its sizes; nothing where fewer than two arms keep something."""
    lines = [Series(one.label, tuple(_max_budgets(one.arms))) for one in series_along(scenario, SIZES | BUDGETS)]
    lines = [one for one in lines if _points(one.arms, final_memory_bytes)]
    if sum(len(one.arms) for one in lines) < 2:
        return ""
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    for index, one in enumerate(lines):
        draw_points(axes, _points(one.arms, final_memory_bytes), one.label, look(index))
    use_byte_axis(axes, "bytes kept beside the model (log scale)")
    use_percent_axis(axes, "average accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy against bytes kept")


def _against_seconds(scenario: Scenario) -> str:
    """A line for each way of distilling through its budgets; nothing where none was given several."""
    lines = [one for one in series_along(scenario, BUDGETS) if _distils(one.arms[0])]
    lines = [one for one in lines if _points(one.arms, memory_cpu_seconds)]
    if max((len(one.arms) for one in lines), default=0) < 2:
        return ""
    figure = new_figure(10.5, 4.2)
    axes = figure.subplots()
    for index, one in enumerate(lines):
        draw_points(axes, _points(one.arms, memory_cpu_seconds), one.label, look(index))
    others = [
        one for one in series_along(scenario, ()) if not _distils(one.arms[0]) and final_memory_bytes(one.arms[0])
    ]
    for index, one in enumerate(others, len(lines)):
        level = 100 * (mean(one.arms[0].values("average_accuracy")) or 0.0)
        draw_level(axes, level, f"{one.label}: {seconds(memory_cpu_seconds(one.arms[0]))}", index)
    use_seconds_axis(axes, "CPU-seconds that the memory takes for each experience (log scale)")
    use_percent_axis(axes, "average accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Average accuracy against seconds of distilling")


def _points(arms: Sequence[Arm], cost: Cost) -> list[Point]:
    """Cost, average accuracy in per cent and its deviation, of each arm that has both, by ascending cost."""
    costs = [(cost(arm) or 0.0, [100 * value for value in arm.values("average_accuracy")]) for arm in arms]
    return sorted((place, mean(values) or 0.0, spread(values)) for place, values in costs if place > 0 and values)


def _max_budgets(arms: Sequence[Arm]) -> list[Arm]:
    """Of arms of the same size, the one that took longest."""
    longest: dict[str, Arm] = {}
    for arm in sorted(arms, key=lambda one: memory_cpu_seconds(one) or 0.0):
        longest[_size_of(arm)] = arm
    return list(longest.values())


def _distils(arm: Arm) -> bool:
    own = arm.settings.get("strategy_settings")
    return uses_method(str(arm.settings.get("strategy")), own if isinstance(own, dict) else {})


def _size_of(arm: Arm) -> str:
    limit, images = number(arm.settings.get("byte_budget")), number(arm.settings.get("images_per_class"))
    return byte_size(limit) if limit is not None or images is None else f"{plural(int(images), 'image')} per class"
