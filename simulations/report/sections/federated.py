"""Federated learning: what accuracy costs in bytes and rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from simulations.report.blocks import Block, Chapter, Grid, Plot, Section
from simulations.report.drawing import (
    Point,
    look,
    new_figure,
    show_legend,
    style,
    to_svg,
    use_byte_axis,
    use_percent_axis,
)
from simulations.report.sections.facts import settings_facts
from simulations.report.source import Sourced
from simulations.tables.arms import TUNING, Arm, Scenario, scenarios
from simulations.tables.bytes_to_reach import rounds_of, table_of_bytes
from simulations.tables.comparison import describe, table_of
from simulations.tables.formats import mean, number, spread
from simulations.tables.poisoning import table_of_attacks


def federated_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy against bytes and over rounds, for each way of dividing data over clients."""
    found, choices = (scenarios([source.record for source in sources], kind) for kind in ("federated", TUNING))
    if not found and not choices:
        return None
    return Section(
        "federated",
        "Federated learning",
        "Nodes keep their data. They send synthetic sets once, or models every round; the server's model is tested on "
        "central test data. Centralised training and pooled distillation, where shown, take all data as they are. "
        "Bytes are those of the messages themselves, all clients and rounds together.",
        [
            *(Chapter(describe(scenario), _blocks(scenario)) for scenario in found),
            *(Chapter(f"Settings chosen: {describe(one)}", [Grid(table_of(one))]) for one in choices),
        ],
    )


def _blocks(scenario: Scenario) -> list[Block]:
    blocks: list[Block] = [Grid(table_of(scenario))]
    blocks += [Grid(table) for table in (table_of_bytes(scenario), table_of_attacks(scenario)) if table]
    over_seeds = f"{_seeds(scenario)} Lines lead from round to round, the large mark is the end."
    with style():
        svg = _against_bytes(scenario)
        if svg:
            blocks.append(Plot("Accuracy against bytes", svg, over_seeds))
        svg = _over_rounds(scenario)
        if svg:
            blocks.append(
                Plot(
                    "Accuracy over rounds",
                    svg,
                    f"{_seeds(scenario)} Round 0 is the untrained model; dotted: the level of a single round.",
                )
            )
    return [*blocks, settings_facts(scenario)]


def _against_bytes(scenario: Scenario) -> str:
    """Two panels: what clients sent, and what was sent to them."""
    figure = new_figure(10.5, 4.0)
    panels = figure.subplots(1, 2, sharey=True)
    drawn = False
    titles = {"bytes_up": "Sent by clients (up)", "bytes_down": "Sent to clients (down)"}
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        for index, arm in enumerate(scenario.arms):
            points = [point for point in _by_round(arm, metric) if point[0] > 0]
            if points:
                _draw_path(axes, points, arm.label, index)
                drawn = True
        axes.set_title(title)
        use_byte_axis(axes, "bytes of all clients and rounds (log scale)")
    use_percent_axis(panels[0], "test accuracy (%)")
    show_legend(figure, panels[0])
    return to_svg(figure, "Accuracy against bytes sent up and down") if drawn else ""


def _over_rounds(scenario: Scenario) -> str:
    figure = new_figure(10.5, 3.9)
    axes = figure.subplots()
    last = 0.0
    for index, arm in enumerate(scenario.arms):
        points = _by_round(arm, "round")
        if not points:
            continue
        last = max(last, points[-1][0])
        if points[-1][0] > 1:
            _draw_path(axes, points, arm.label, index)
        else:  # a single round: a mark, and its level for the comparison with all later rounds
            _draw_path(axes, points[-1:], arm.label, index)
            axes.axhline(points[-1][1], color=look(index)["color"], linestyle=":", linewidth=1.2, alpha=0.8)
    if not last:
        return ""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.04 * last, 1.04 * last)
    axes.set_xlabel("communication round")
    use_percent_axis(axes, "test accuracy (%)")
    show_legend(figure, axes)
    return to_svg(figure, "Accuracy over communication rounds")


def _draw_path(axes: Any, points: list[Point], label: str, index: int) -> None:
    """The way through the rounds, with the last one marked and its deviation over seeds."""
    xs, ys, deviations = (list(values) for values in zip(*points, strict=True))
    looks = look(index)
    axes.plot(xs, ys, color=looks["color"], linestyle=looks["linestyle"], alpha=0.75)
    if len(xs) <= 30:
        axes.plot(xs[:-1], ys[:-1], color=looks["color"], marker=looks["marker"], markersize=3.5, linestyle="")
    error = deviations[-1:] if deviations[-1] else None
    axes.errorbar(xs[-1:], ys[-1:], yerr=error, label=label, markersize=9, **{**looks, "linestyle": ""})


def _by_round(arm: Arm, metric: str) -> list[Point]:
    """One point for each round that seeds have in common in some way: mean of the metric, accuracy and deviation."""
    places, accuracies = defaultdict(list), defaultdict(list)
    for record in arm.records:
        for one in rounds_of(record):
            index, place, accuracy = (number(one.get(name)) for name in ("round", metric, "accuracy"))
            if index is not None and place is not None and accuracy is not None:
                places[index].append(place)
                accuracies[index].append(100 * accuracy)
    return [(mean(places[i]) or 0.0, mean(accuracies[i]) or 0.0, spread(accuracies[i])) for i in sorted(places)]


def _seeds(scenario: Scenario) -> str:
    count = scenario.seed_count
    return f"Mean of up to {count} seeds, bars show the standard deviation." if count > 1 else "One seed."
