"""Distillation alone: how much a few samples teach, and what they look like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from simulations.arms import Arm, Scenario, scenarios
from simulations.formats import byte_size, mean, percent, spread
from simulations.report.blocks import Block, Chapter, Grid, Picture, Pictures, Plot, Section
from simulations.report.drawing import look, new_figure, show_legend, style, to_svg, use_byte_axis, use_percent_axis
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced, picture_of
from simulations.tables import describe, distil_accuracies, table_of


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
    with style():
        svg = _against_bytes(scenario)
    if svg:
        blocks.append(
            Plot("Accuracy against payload", svg, "Mean and standard deviation over all networks of all seeds.")
        )
    pictures = tuple(picture for arm in scenario.arms if (picture := _picture(arm, sources)) is not None)
    if pictures:
        caption = (
            "One row for each class, up to ten images each, as decoded; values outside the data's range are clipped."
        )
        blocks.append(Pictures("The samples themselves", pictures, caption))
    return [*blocks, settings_facts(scenario)]


def _against_bytes(scenario: Scenario) -> str:
    """A line for each method through its sizes; nothing where all arms have the same size."""
    lines = defaultdict(list)
    for arm in scenario.arms:
        size, accuracies = mean(arm.values("payload_bytes")), [100 * value for value in distil_accuracies(arm)]
        if size and accuracies:
            lines[str(arm.settings.get("method"))].append((size, mean(accuracies) or 0.0, spread(accuracies)))
    if len({round(size) for points in lines.values() for size, _, _ in points}) < 2:
        return ""
    figure = new_figure(10.5, 4.0)
    axes = figure.subplots()
    for index, (method, points) in enumerate(lines.items()):
        xs, ys, deviations = (list(values) for values in zip(*sorted(points), strict=True))
        axes.errorbar(xs, ys, yerr=deviations if any(deviations) else None, label=method, **look(index))
    use_byte_axis(axes, "payload (bytes, log scale)")
    use_percent_axis(axes, "test accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Accuracy against payload bytes")


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
