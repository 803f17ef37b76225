"""Sections on distilled sets, federated runs, privacy and audits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from simulations.formats import byte_size, mean, number, percent, spread
from simulations.report.blocks import (
    Block,
    Chapter,
    Grid,
    Picture,
    Pictures,
    Plot,
    Section,
    Sourced,
    picture_of,
    settings_facts,
    spread_over,
)
from simulations.report.drawing import (
    Point,
    byte_panels,
    chart,
    draw_points,
    drawing_of_curves,
    drawing_of_privacy,
    look,
    style,
    use_byte_axis,
    use_percent_axis,
    use_seconds_axis,
)
from simulations.running.runs import Kind
from simulations.tables.comparison import describe, distil_accuracies, table_of
from simulations.tables.federated import rounds_of, table_of_attacks, table_of_bytes
from simulations.tables.privacy import audit_tables, privacy_table, privacy_tasks
from simulations.tables.variants import Scenario, Variant, scenarios

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
    pictures = tuple(picture for variant in scenario.variants if (picture := _picture(variant, sources)) is not None)
    if pictures:
        caption = (
            "One row for each class, up to ten images each, as decoded; values outside the data's range are clipped."
        )
        blocks.append(Pictures("The samples themselves", pictures, caption))
    return [*blocks, settings_facts(scenario)]


def _against_bytes(scenario: Scenario) -> str:
    """A line for each method through its sizes; nothing where all variants have the same size."""
    points = _points(scenario, "payload_bytes")
    if len({round(size) for line in points.values() for size, _, _ in line}) < 2:
        return ""

    def draw(axes: Axes) -> None:
        _draw_lines(axes, points)
        use_byte_axis(axes, "payload (bytes, log scale)")

    return chart(draw, "Accuracy against payload bytes")


def _against_cpu_seconds(scenario: Scenario) -> str:
    """A mark for each variant, one colour for each method; nothing where fewer than two cost anything."""
    points = {
        method: dear
        for method, line in _points(scenario, "distil_cpu_seconds").items()
        if (dear := [one for one in line if one[0] >= _CHEAP_SECONDS])
    }
    if sum(map(len, points.values())) < 2:
        return ""

    def draw(axes: Axes) -> None:
        _draw_lines(axes, points, joined=False)
        use_seconds_axis(axes, "CPU-seconds of the distillation (log scale)")

    return chart(draw, "Accuracy against CPU-seconds")


def _points(scenario: Scenario, metric: str) -> dict[str, list[Point]]:
    """For each method, the metric of each variant with its accuracy."""
    points = defaultdict(list)
    for variant in scenario.variants:
        place, accuracies = mean(variant.values(metric)), [100 * value for value in distil_accuracies(variant)]
        if place and accuracies:
            points[str(variant.settings.get("method"))].append((place, mean(accuracies) or 0.0, spread(accuracies)))
    return points


def _draw_lines(axes: Axes, points: Mapping[str, list[Point]], *, joined: bool = True) -> None:
    for index, (method, line) in enumerate(points.items()):
        draw_points(axes, sorted(line), method, look(index) if joined else {**look(index), "linestyle": ""})
    use_percent_axis(axes, "test accuracy (%)")


def _picture(variant: Variant, sources: Sequence[Sourced]) -> Picture | None:
    """The picture of the variant's first seed that has one."""
    by_key = {source.record["key"]: source for source in sources}
    for record in variant.records:
        found = picture_of(by_key[record["key"]])
        if found is not None:
            details = [f"{percent(distil_accuracies(variant))} %", byte_size(mean(variant.values("payload_bytes")))]
            details.append(f"seed {record['settings'].get('seed')}")
            return Picture(variant.label, found[0], " · ".join(details), found[1])
    return None


def federated_section(sources: Sequence[Sourced]) -> Section | None:
    """Accuracy against bytes and over rounds, for each way of dividing data over clients."""
    found, choices = (
        scenarios([source.record for source in sources], kind) for kind in ("federated", Kind.FEDERATED_TUNING)
    )
    if not found and not choices:
        return None
    return Section(
        "federated",
        "Federated learning",
        "Nodes keep their data. They send synthetic sets once, or models every round; the server's model is tested on "
        "central test data. Centralised training and pooled distillation, where shown, take all data as they are. "
        "Bytes are those of the messages themselves, all clients and rounds together.",
        [
            *(Chapter(describe(scenario), _federated_blocks(scenario)) for scenario in found),
            *(Chapter(f"Settings chosen: {describe(one)}", [Grid(table_of(one))]) for one in choices),
        ],
    )


def _federated_blocks(scenario: Scenario) -> list[Block]:
    blocks: list[Block] = [Grid(table_of(scenario))]
    blocks += [Grid(table) for table in (table_of_bytes(scenario), table_of_attacks(scenario)) if table]
    seeds = spread_over(scenario, "seed")
    over_seeds = f"{seeds} Lines lead from round to round, the large mark is the end."
    with style():
        svg = _federated_against_bytes(scenario)
        if svg:
            blocks.append(Plot("Accuracy against bytes", svg, over_seeds))
        svg = _over_rounds(scenario)
        if svg:
            blocks.append(
                Plot(
                    "Accuracy over rounds",
                    svg,
                    f"{seeds} Round 0 is the untrained model; dotted: the level of a single round.",
                )
            )
    return [*blocks, settings_facts(scenario)]


def _federated_against_bytes(scenario: Scenario) -> str:
    """Two panels: what clients sent, and what was sent to them."""

    def draw(metric: str, axes: Axes) -> bool:
        ways = [[point for point in _by_round(variant, metric) if point[0] > 0] for variant in scenario.variants]
        for index, (variant, points) in enumerate(zip(scenario.variants, ways, strict=True)):
            if points:
                _draw_path(axes, points, variant.label, index)
        return any(ways)

    panels = {
        "Sent by clients (up)": partial(draw, "bytes_up"),
        "Sent to clients (down)": partial(draw, "bytes_down"),
    }
    across = "bytes of all clients and rounds (log scale)"
    return byte_panels(panels, across, "test accuracy (%)", "Accuracy against bytes sent up and down")


def _over_rounds(scenario: Scenario) -> str:
    ways = [(index, variant, _by_round(variant, "round")) for index, variant in enumerate(scenario.variants)]
    last = max((points[-1][0] for _, _, points in ways if points), default=0.0)
    if last <= 0:
        return ""

    def draw(axes: Axes) -> None:
        for index, variant, points in ways:
            if points and points[-1][0] > 1:
                _draw_path(axes, points, variant.label, index)
            elif points:  # a single round: a mark, and its level for the comparison with all later rounds
                _draw_path(axes, points[-1:], variant.label, index)
                axes.axhline(points[-1][1], color=look(index)["color"], linestyle=":", linewidth=1.2, alpha=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(-0.04 * last, 1.04 * last)
        axes.set_xlabel("communication round")
        use_percent_axis(axes, "test accuracy (%)")

    return chart(draw, "Accuracy over communication rounds", 3.9)


def _draw_path(axes: Any, points: list[Point], label: str, index: int) -> None:
    """The way through the rounds, with the last one marked and its deviation over seeds."""
    xs, ys, deviations = (list(values) for values in zip(*points, strict=True))
    looks = look(index)
    axes.plot(xs, ys, color=looks["color"], linestyle=looks["linestyle"], alpha=0.75)
    if len(xs) <= 30:
        axes.plot(xs[:-1], ys[:-1], color=looks["color"], marker=looks["marker"], markersize=3.5, linestyle="")
    error = deviations[-1:] if deviations[-1] else None
    axes.errorbar(xs[-1:], ys[-1:], yerr=error, label=label, markersize=9, **{**looks, "linestyle": ""})


def _by_round(variant: Variant, metric: str) -> list[Point]:
    """One point for each round that seeds have in common in some way: mean of the metric, accuracy and deviation."""
    places, accuracies = defaultdict(list), defaultdict(list)
    for record in variant.records:
        for one in rounds_of(record):
            index, place, accuracy = (number(one.get(name)) for name in ("round", metric, "accuracy"))
            if index is not None and place is not None and accuracy is not None:
                places[index].append(place)
                accuracies[index].append(100 * accuracy)
    return [(mean(places[i]) or 0.0, mean(accuracies[i]) or 0.0, spread(accuracies[i])) for i in sorted(places)]


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


def audit_section(sources: Sequence[Sourced]) -> Section | None:
    """Membership inference, near copies and bounds of ε for each task."""
    found = scenarios([source.record for source in sources], Kind.AUDIT)
    if not found:
        return None
    return Section(
        "audit",
        "Privacy audits",
        "Who was a member of the data behind a release? Attacks that succeed prove a leak; attacks that fail prove "
        "nothing.",
        [Chapter(describe(scenario), _audit_blocks(scenario, sources)) for scenario in found],
    )


def _audit_blocks(scenario: Scenario, sources: Sequence[Sourced]) -> list[Block]:
    by_key = {source.record["key"]: source for source in sources}
    records = [record for variant in scenario.variants for record in variant.records]
    blocks: list[Block] = [Grid(table) for table in audit_tables(records)]
    if drawing := drawing_of_curves(scenario):
        caption = (
            "For each release the attack of the largest area; dotted: guessing. Mean over releases of the first seed."
        )
        blocks.append(Plot("Members found against false alarms", drawing, caption))
    pictures = []
    for variant in scenario.variants:
        found = picture_of(by_key[variant.records[0]["key"]])
        if found is not None:
            pictures.append(Picture(variant.label, found[0], "", found[1]))
    if pictures:
        caption = (
            "Pairs of a released sample and, to its right, the member nearest to it; the closest five of each class."
        )
        blocks.append(Pictures("Released samples beside members", tuple(pictures), caption))
    return [*blocks, settings_facts(scenario)]
