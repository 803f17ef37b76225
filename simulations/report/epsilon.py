"""Accuracy against ε as a drawing: a panel for each task."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from simulations.report.drawing import draw_points, look, new_figure, style, to_svg, use_percent_axis
from simulations.tables.formats import mean, spread
from simulations.tables.privacy_curves import Task, epsilons_of, show_epsilon

_REFERENCE_DASHES = ":"


def drawing_of_privacy(tasks: Sequence[Task]) -> str:
    """Markup of one drawing of at least one task; every ε has the same room, the last is that of no noise."""
    labels = list(dict.fromkeys(label for task in tasks for label in task.curves))
    references = list(dict.fromkeys(label for task in tasks for label in task.references))
    epsilons = epsilons_of(tasks)
    with style():
        figure = new_figure(5.4 * max(2, len(tasks)), 4.2)
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for number, label in enumerate(labels):
                _draw_curve(axes, task, label, number, epsilons)
            for number, label in enumerate(references, start=len(labels)):
                _draw_reference(axes, task, label, number)
            axes.set_title(task.title)
            axes.set_xlabel("ε, from most private to no noise")
            axes.set_xticks(range(len(epsilons)), [show_epsilon(one) for one in epsilons])
        use_percent_axis(panels[0], "test accuracy (%)")
        handles = {label: handle for axes in panels for handle, label in zip(*_legend(axes), strict=True)}
        order = [label for label in (*labels, *references) if label in handles]
        figure.legend([handles[label] for label in order], order, loc="outside lower left", ncols=3, fontsize=9.5)
        return to_svg(figure, "Accuracy against epsilon")


def _draw_curve(axes: Axes, task: Task, label: str, number: int, epsilons: Sequence[float]) -> None:
    curve = task.curves.get(label, {})
    columns = [(float(place), [100 * value for value in curve.get(one, [])]) for place, one in enumerate(epsilons)]
    if points := [(place, mean(values) or 0.0, spread(values)) for place, values in columns if values]:
        draw_points(axes, points, label, look(number))


def _draw_reference(axes: Axes, task: Task, label: str, number: int) -> None:
    height = mean(task.references.get(label, []))
    if height is not None:
        colour = look(number)["color"]
        axes.axhline(100 * height, color=colour, linestyle=_REFERENCE_DASHES, label=f"{label}, claims nothing")


def _legend(axes: Axes) -> tuple[list[Artist], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    return handles, [label.removesuffix(", claims nothing") for label in labels]
