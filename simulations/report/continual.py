"""Sections on runs through streams of experiences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes

from simulations.formats import byte_size, mean, number, numbers, percent, plural, seconds, spread
from simulations.report.blocks import (
    Block,
    Chapter,
    Grid,
    HeatMap,
    HeatMaps,
    Plot,
    Section,
    Sourced,
    settings_facts,
    spread_over,
)
from simulations.report.drawing import (
    Point,
    byte_panels,
    chart,
    draw_level,
    draw_points,
    heat_cell,
    look,
    style,
    use_byte_axis,
    use_percent_axis,
    use_seconds_axis,
    use_stage_axes,
)
from simulations.tables.comparison import describe, final_memory_bytes, memory_cpu_seconds, table_of
from simulations.tables.variants import (
    BUDGETS,
    SIZES,
    Matrix,
    Scenario,
    Series,
    Variant,
    forgotten,
    matrices_of,
    scenarios,
    seen_so_far,
    series_along,
)
from strategies.continual.settings import uses_method


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
    caption = spread_over(scenario, "run")
    blocks: list[Block] = [Grid(table_of(scenario)), *stage_plots(scenario, caption), *cost_plots(scenario, caption)]
    told = "Mean over runs. Right of the diagonal are experiences that were still to come."
    return [*blocks, *_heat_maps(scenario, "Accuracy matrix", "after experience", told), settings_facts(scenario)]


def _heat_maps(scenario: Scenario, title: str, row_axis: str, caption: str) -> list[Block]:
    """A matrix of accuracies for each variant that has one; a row for each stage of a stream, or a single one."""
    found = [(variant, _alike(matrices_of(variant, square=False))) for variant in scenario.variants]
    maps = tuple(_heat_map(variant, matrices) for variant, matrices in found if matrices)
    column_axis = "accuracy (%) on the test data of experience"
    return [HeatMaps(title, maps, row_axis=row_axis, column_axis=column_axis, caption=caption)] if maps else []


def _alike(matrices: list[Matrix]) -> list[Matrix]:
    """Without those that differ in shape from the first."""
    return [one for one in matrices if (len(one), len(one[0])) == (len(matrices[0]), len(matrices[0][0]))]


def _heat_map(variant: Variant, matrices: list[Matrix]) -> HeatMap:
    stages, experiences = len(matrices[0]), len(matrices[0][0])
    names = ["all"] if stages == 1 < experiences else [str(i + 1) for i in range(stages)]
    averaged = [[mean([one[i][j] for one in matrices]) for j in range(experiences)] for i in range(stages)]
    rows = tuple((name, tuple(heat_cell(value) for value in row)) for name, row in zip(names, averaged, strict=True))
    average = percent(variant.values("average_accuracy"))
    return HeatMap(f"{variant.label}: {average} %", tuple(str(j + 1) for j in range(experiences)), rows)


Cost = Callable[[Variant], float | None]


def cost_plots(scenario: Scenario, caption: str) -> list[Plot]:
    """Those plots for which the scenario has results: bytes once, seconds for each size of the memory."""
    plots = []
    with style():
        if svg := _against_bytes(scenario):
            told = f"After the last experience; of several budgets of distilling the largest. {caption}"
            plots.append(Plot("Average accuracy against bytes kept", svg, told))
        for size in series_along(scenario, {name for name in scenario.varying if name not in SIZES}):
            if svg := _against_seconds(Scenario(scenario.kind, scenario.settings, size.variants)):
                title = f"Average accuracy against seconds of distilling, {_size_of(size.variants[0])}"
                plots.append(Plot(title, svg, f"Dashed: memories that distil nothing. {caption}"))
    return plots


def _against_bytes(scenario: Scenario) -> str:
    """A line for each strategy through its sizes; nothing where fewer than two variants keep something."""
    lines = [Series(one.label, tuple(_max_budgets(one.variants))) for one in series_along(scenario, SIZES | BUDGETS)]
    lines = [one for one in lines if _points(one.variants, final_memory_bytes)]
    if sum(len(one.variants) for one in lines) < 2:
        return ""

    def draw(axes: Axes) -> None:
        for index, one in enumerate(lines):
            draw_points(axes, _points(one.variants, final_memory_bytes), one.label, look(index))
        use_byte_axis(axes, "bytes kept beside the model (log scale)")
        use_percent_axis(axes, "average accuracy (%)")

    return chart(draw, "Average accuracy against bytes kept", 3.9)


def _against_seconds(scenario: Scenario) -> str:
    """A line for each way of distilling through its budgets; nothing where none was given several."""
    lines = [one for one in series_along(scenario, BUDGETS) if _distils(one.variants[0])]
    lines = [one for one in lines if _points(one.variants, memory_cpu_seconds)]
    if max((len(one.variants) for one in lines), default=0) < 2:
        return ""
    others = [
        one
        for one in series_along(scenario, ())
        if not _distils(one.variants[0]) and final_memory_bytes(one.variants[0])
    ]

    def draw(axes: Axes) -> None:
        for index, one in enumerate(lines):
            draw_points(axes, _points(one.variants, memory_cpu_seconds), one.label, look(index))
        for index, one in enumerate(others, len(lines)):
            level = 100 * (mean(one.variants[0].values("average_accuracy")) or 0.0)
            draw_level(axes, level, f"{one.label}: {seconds(memory_cpu_seconds(one.variants[0]))}", index)
        use_seconds_axis(axes, "CPU-seconds that the memory takes for each experience (log scale)")
        use_percent_axis(axes, "average accuracy (%)")

    return chart(draw, "Average accuracy against seconds of distilling", 4.2)


def _points(variants: Sequence[Variant], cost: Cost) -> list[Point]:
    """Cost, average accuracy in per cent and its deviation, of each variant that has both, by ascending cost."""
    costs = [
        (cost(variant) or 0.0, [100 * value for value in variant.values("average_accuracy")]) for variant in variants
    ]
    return sorted((place, mean(values) or 0.0, spread(values)) for place, values in costs if place > 0 and values)


def _max_budgets(variants: Sequence[Variant]) -> list[Variant]:
    """Of variants of the same size, the one that took longest."""
    longest: dict[str, Variant] = {}
    for variant in sorted(variants, key=lambda one: memory_cpu_seconds(one) or 0.0):
        longest[_size_of(variant)] = variant
    return list(longest.values())


def _distils(variant: Variant) -> bool:
    own = variant.settings.get("strategy_settings")
    return uses_method(str(variant.settings.get("strategy")), own if isinstance(own, dict) else {})


def _size_of(variant: Variant) -> str:
    limit, images = number(variant.settings.get("byte_budget")), number(variant.settings.get("images_per_class"))
    return byte_size(limit) if limit is not None or images is None else f"{plural(int(images), 'image')} per class"


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
    curves = {
        index: _means([seen_so_far(matrix) for matrix in matrices_of(variant) if len(matrix) > 1])
        for index, variant in enumerate(scenario.variants)
    }
    if not any(curves.values()):
        return ""

    def draw(axes: Axes) -> None:
        for index, variant in enumerate(scenario.variants):
            if curves[index]:
                draw_points(axes, curves[index], variant.label, look(index))
            elif variant.values("average_accuracy"):
                level = 100 * (mean(variant.values("average_accuracy")) or 0.0)
                draw_level(axes, level, f"{variant.label} (all at once)", index)
        use_stage_axes(axes, max(map(len, curves.values())), "experiences trained on")

    return chart(draw, "Average accuracy after each experience", 3.9)


def _means(lists: Sequence[Sequence[float]]) -> list[Point]:
    """Of lists of fractions, one a run: a point in per cent for each place, numbered from 1."""
    columns = [[100 * value for value in column] for column in zip(*lists, strict=False)]
    return [(float(place), mean(column) or 0.0, spread(column)) for place, column in enumerate(columns, 1)]


def _forgetting(scenario: Scenario) -> str:
    variants = [
        (variant, [forgotten(matrix) for matrix in matrices_of(variant) if len(matrix) > 1])
        for variant in scenario.variants
    ]
    shown = [(index, variant, lists) for index, (variant, lists) in enumerate(variants) if lists]
    experiences = max((len(one) for _, _, lists in shown for one in lists), default=0)
    if not experiences:
        return ""
    width = _BARS_SHARE / len(shown)

    def draw(axes: Axes) -> None:
        for position, (index, variant, lists) in enumerate(shown):
            points = _means(lists)
            deviations = [deviation for _, _, deviation in points]
            axes.bar(
                [place - _BARS_SHARE / 2 + width * (position + 0.5) for place, _, _ in points],
                [height for _, height, _ in points],
                width=0.92 * width,
                yerr=deviations if any(deviations) else None,
                color=look(index)["color"],
                ecolor="#020202",
                label=variant.label,
            )
        axes.axhline(0, color="#020202", linewidth=0.8)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(range(1, experiences + 1))
        axes.set_xlabel("experience")
        axes.set_ylabel("forgetting (percentage points)")

    return chart(draw, "Forgetting of each experience", 3.6)


def federated_continual_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy by stage, bytes, and accuracy matrices, for each way in which clients live through a stream."""
    found = scenarios([source.record for source in sources], "federated-continual")
    if not found:
        return None
    return Section(
        "federated-continual",
        "Federated continual learning",
        "Clients live through streams of experiences, come late or leave. At every stage they send sets, sums or "
        "models; the global model is tested on all experiences. Variants named joint take all data seen so far as they "
        "are: ceilings.",
        [Chapter(describe(scenario), _federated_continual_blocks(scenario)) for scenario in found],
    )


def _federated_continual_blocks(scenario: Scenario) -> list[Block]:
    blocks: list[Block] = [Grid(table_of(scenario))]
    caption = spread_over(scenario, "seed")
    with style():
        if svg := _by_stage(scenario):
            blocks.append(Plot("Average accuracy on what was seen so far", svg, caption))
        if svg := _federated_continual_against_bytes(scenario):
            blocks.append(Plot("Average accuracy against bytes", svg, f"After the last stage. {caption}"))
    told = "Mean over seeds. Experiences that nobody had met by then are still to come."
    return [*blocks, *_heat_maps(scenario, "Global accuracy matrix", "after stage", told), settings_facts(scenario)]


def _by_stage(scenario: Scenario) -> str:
    curves = [(index, variant, _curve(variant)) for index, variant in enumerate(scenario.variants)]
    stages = max((len(curve) for _, _, curve in curves), default=0)
    if not stages:
        return ""

    def draw(axes: Axes) -> None:
        for index, variant, curve in curves:
            if curve:
                draw_points(axes, curve, variant.label, look(index))
        use_stage_axes(axes, stages, "stage")

    return chart(draw, "Average accuracy after each stage", 3.9)


def _federated_continual_against_bytes(scenario: Scenario) -> str:
    """Two panels: what was sent both ways, and what is kept beside the models."""

    def draw(metrics: Sequence[str], axes: Axes) -> bool:
        drawn = False
        for index, variant in enumerate(scenario.variants):
            size = sum(mean(variant.values(metric)) or 0.0 for metric in metrics)
            values = [100 * value for value in variant.values("average_accuracy")]
            if size > 0 and values:
                point = (size, mean(values) or 0.0, spread(values))
                draw_points(axes, [point], variant.label, {**look(index), "linestyle": ""})
                drawn = True
        return drawn

    panels = {
        "Sent, both ways": partial(draw, ("bytes_up", "bytes_down")),
        "Kept, by server and clients": partial(draw, ("server_bytes", "client_bytes")),
    }
    across = "bytes of all clients and stages (log scale)"
    return byte_panels(panels, across, "average accuracy (%)", "Average accuracy against bytes sent and kept")


def _curve(variant: Variant) -> list[Point]:
    """By stage: the mean over seeds, and the standard deviation."""
    lists = [record["metrics"].get("average_by_stage") for record in variant.records]
    return _means([numbers(one) for one in lists if isinstance(one, list) and len(numbers(one)) == len(one)])
