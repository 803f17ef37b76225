"""Drawings: curves, maps, ROC curves, accuracy against epsilon."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from simulations.formats import ABSENT, byte_size, mean, numbers, seconds, spread
from simulations.report.blocks import HeatCell
from simulations.tables.privacy import Task, epsilons_of, show_epsilon
from simulations.tables.variants import Scenario, Variant

Point = tuple[float, float, float]
"""Where, how high, and the standard deviation of the height."""

_SERIES = 8
_INK, _FAINT, _LINE = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "ink", _FAINT: "faint", _LINE: "line", **{f"#0a0a{i:02x}": f"series-{i}" for i in range(_SERIES)}}
"""Colours drawn with, and the variables of the page's style sheet that take their place."""

_MARKERS = "osD^vPX*"
_MARKER_SHIFT = 3
_DASHES = ("-", "--", "-.", ":")

_STYLE: Any = {
    "text.parse_math": False,  # names come from results: a "$" in them is a dollar
    "svg.fonttype": "none",  # texts stay texts: smaller, searchable, in the page's font
    "svg.hashsalt": "fedcl-distill",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _FAINT,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelpad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "ytick.major.size": 0,
    "lines.linewidth": 1.9,
    "lines.markersize": 6.5,
    "legend.frameon": False,
    "errorbar.capsize": 3,
    "figure.constrained_layout.use": True,
    "path.simplify": True,
}

_STYLE_SHEET = Path(__file__).parent / "style.css"
_numbers = itertools.count()


@contextmanager
def style() -> Iterator[None]:
    """Draw in the page's style inside the block."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that no window system knows of."""
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the series number ``index``: three ways to tell it from the others.

    Colours come again after ``_SERIES``, with other dashes and, for series that are single marks, other markers.
    """
    turn = index // _SERIES
    marker = _MARKERS[(index + turn * _MARKER_SHIFT) % len(_MARKERS)]
    return {"color": f"#0a0a{index % _SERIES:02x}", "marker": marker, "linestyle": _DASHES[turn % len(_DASHES)]}


def draw_points(axes: Axes, points: Sequence[Point], label: str, looks: Mapping[str, Any]) -> None:
    """A series of at least one point, with bars where there are deviations; ``looks`` as of :func:`look`."""
    places, heights, deviations = (list(values) for values in zip(*points, strict=True))
    axes.errorbar(places, heights, yerr=deviations if any(deviations) else None, label=label, **looks)


def draw_level(axes: Axes, height: float, label: str, index: int) -> None:
    """A dashed line all across, of something that has no place on the horizontal axis."""
    axes.axhline(height, color=look(index)["color"], linestyle=(0, (6, 3)), label=label)


def show_legend(figure: Figure, axes: Axes) -> None:
    """All series of ``axes`` in one legend below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = max(1, min(len(labels), int(130 // (max(map(len, labels)) + 6))))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=9.5)


def chart(draw: Callable[[Axes], object], description: str, height: float = 4.0) -> str:
    """As SVG, what ``draw`` draws on axes as wide as the page, with a legend below."""
    figure = new_figure(10.5, height)
    axes = figure.subplots()
    draw(axes)
    show_legend(figure, axes)
    return to_svg(figure, description)


def byte_panels(panels: Mapping[str, Callable[[Axes], bool]], across: str, up: str, description: str) -> str:
    """As SVG, panels over bytes side by side; each function says whether it drew anything. "" where none did."""
    figure = new_figure(10.5, 4.0)
    places = figure.subplots(1, len(panels), sharey=True)
    drawn = [draw(axes) for axes, draw in zip(places, panels.values(), strict=True)]
    for axes, title in zip(places, panels, strict=True):
        axes.set_title(title)
        use_byte_axis(axes, across)
    use_percent_axis(places[0], up)
    show_legend(figure, places[0])
    return to_svg(figure, description) if any(drawn) else ""


def use_byte_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis of bytes with ticks such as "10 kB"."""
    _use_log_axis(axes, label, _round_bytes)


def use_seconds_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis of durations with ticks such as "0.05 s", "50 s" and "3 min 20 s"."""
    _use_log_axis(axes, label, lambda value: f"{value:g} s" if value < 1 else seconds(value))


def _use_log_axis(axes: Axes, label: str, show: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label)
    low, high = (place * factor for place, factor in zip(axes.dataLim.intervalx, (1 / 1.7, 1.7), strict=True))
    if 0 < low < high < float("inf"):
        axes.set_xlim(low, high)
        few_decades = high / low < 200
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if few_decades else (1.0,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False, which="minor")


def use_percent_axis(axes: Axes, label: str) -> None:
    """A vertical axis in per cent of values that are already per cent."""
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def use_stage_axes(axes: Axes, stages: int, label: str) -> None:
    """Stages from 1 on along the horizontal axis, mean accuracies from 0 to 100 per cent along the vertical one."""
    axes.set_xticks(range(1, stages + 1))
    axes.set_ylim(0, 103)
    axes.set_xlabel(label)
    use_percent_axis(axes, "mean test accuracy (%)")


def to_svg(figure: Figure, description: str) -> str:
    """The figure as markup for an HTML page, without anything it would fetch; ``description`` is for screen readers."""
    for text in figure.findobj(Text):  # names come from results: halves of characters have no picture in any font
        text.set_text(text.get_text().encode("utf-8", "replace").decode())
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg role="img" viewBox="\1">{_title(description)}', svg, count=1
    )
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return _with_own_ids(svg)


def standalone(svg: str) -> str:
    """A drawing that was made for the page as a file of its own: it brings the page's colours along."""
    colours = re.findall(r"(?:@media [^{]*\{\s*)?:root \{[^}]*\}(?:\s*\})?", _STYLE_SHEET.read_text(encoding="utf-8"))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opened = svg.replace("<svg ", f"<svg {names} ", 1)
    return re.sub("(<svg [^>]*>)", lambda tag: f"{tag[1]}<style>{''.join(colours)}</style>", opened, count=1)


def _title(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<title>{escaped}</title>"


def _with_own_ids(svg: str) -> str:
    """Names that no other drawing on the page has, because references would lead to the first one."""
    prefix = f"plot{next(_numbers)}-"
    svg = re.sub(r'(\sid=")', rf"\1{prefix}", svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    return re.sub(r'xlink:href="#', f'href="#{prefix}', svg)


def _round_bytes(value: float) -> str:
    return byte_size(value).replace(".00", "").replace(".0 ", " ")


_STOPS = ((246, 248, 252), (158, 202, 225), (49, 130, 189), (8, 48, 107))
_DARK_FROM = 0.5


def heat_cell(value: float | None) -> HeatCell:
    """The field for a fraction in [0, 1], as whole per cent; grey without one."""
    if value is None:
        return HeatCell(ABSENT, "#8886", "inherit")
    share = min(1.0, max(0.0, value))
    ink = "#ffffff" if share >= _DARK_FROM else "#16202c"
    return HeatCell(f"{100 * value:.0f}", _colour(share), ink)


def _colour(share: float) -> str:
    position = share * (len(_STOPS) - 1)
    index = min(int(position), len(_STOPS) - 2)
    rest = position - index
    mixed = (round(a + (b - a) * rest) for a, b in zip(_STOPS[index], _STOPS[index + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


_LOW = 5e-4


def drawing_of_curves(scenario: Scenario) -> str:
    """SVG: for each variant, the curve of its attack with the largest area; nothing without results."""
    lines = {variant.label: line for variant in scenario.variants if (line := _curve(variant)) is not None}
    if not lines:
        return ""
    with style():
        figure = new_figure(7.0, 6.0)
        axes = figure.subplots()
        for index, (label, (false_rates, true_rates, attack)) in enumerate(lines.items()):
            looks = {**look(index), "marker": ""}
            axes.plot(false_rates, true_rates, label=f"{label}: {attack}", **looks)
        axes.plot([_LOW, 1], [_LOW, 1], color="#020202", linewidth=0.8, linestyle=":")
        for axis, name in ((axes.xaxis, "false positive rate"), (axes.yaxis, "true positive rate")):
            axis.set_label_text(f"{name} (log scale)")
        axes.set(xscale="log", yscale="log", xlim=(_LOW, 1), ylim=(_LOW, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.grid(visible=False, which="minor")
        show_legend(figure, axes)
        return to_svg(figure, "True against false positive rates of membership inference")


def _curve(variant: Variant) -> tuple[Sequence[float], Sequence[float], str] | None:
    """Of the variant's first seed."""
    attacks = variant.records[0]["metrics"].get("attacks")
    if not isinstance(attacks, dict) or not attacks:
        return None
    best = max(attacks, key=lambda name: attacks[name]["auc"]["value"])
    curve = attacks[best].get("curve") or {}
    false_rates, true_rates = (numbers(curve.get(name)) for name in ("fpr", "tpr"))
    return (false_rates, true_rates, best) if false_rates and len(false_rates) == len(true_rates) else None


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
