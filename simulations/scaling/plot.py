"""The measurements as one drawing: a column for each axis, seconds above memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from simulations.report.drawing import look, new_figure, standalone, style, to_svg
from simulations.running.records import Record
from simulations.scaling.results import cpu_seconds, laws, sizes_of
from simulations.scaling.settings import AXES, WORKS, Point, axes_of
from simulations.tables.formats import byte_size

_TITLES = dict(zip(AXES, ("images per class", "classes", "pixels a side", "width", "clients"), strict=True))


def drawing_of_scaling(records: Sequence[Record], middles: Sequence[Point]) -> str:
    """A file of SVG: what was measured as marks, the fitted laws as lines.

    Args:
        records: the measurements.
        middles: for each work, the point that all axes cross in.
    """
    with style():
        figure = new_figure(12.0, 5.6)
        panels = figure.subplots(2, len(AXES), sharex="col", sharey="row", squeeze=False)
        for (above, below), axis in zip(panels.T, AXES, strict=True):
            for middle in middles:
                if axis in axes_of(middle.work):
                    _draw(above, below, axis, _along(records, middle, axis))
                    _draw_law(above, records, middle, axis)
            _label(above, below, axis)
        panels[0, 0].set_ylabel("CPU-seconds")
        panels[1, 0].set_ylabel("memory")
        panels[1, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: byte_size(value)))
        handles = {one.get_label(): one for panel in panels[0] for one in panel.lines if one.get_label()[0] != "_"}
        figure.legend(list(handles.values()), list(handles), loc="outside lower left", ncols=len(handles))
        return standalone(to_svg(figure, "CPU-seconds and memory against the sizes of the problem"))


def _along(records: Sequence[Record], middle: Point, axis: str) -> list[Record]:
    """The measurements that differ from the middle along ``axis`` alone, in its order."""
    crossing = {**middle.as_record(), axis: None}
    along = [record for record in records if {**record["settings"], axis: None} == crossing]
    return sorted(along, key=lambda record: int(record["settings"][axis]))


def _draw(above: Axes, below: Axes, axis: str, along: Sequence[Record]) -> None:
    places = [record["settings"][axis] for record in along]
    looks = _look(along)
    above.plot(places, [cpu_seconds(record) for record in along], **looks)
    held = [(place, record["metrics"]["peak_bytes"]) for place, record in zip(places, along, strict=True)]
    held = [(place, peak) for place, peak in held if peak]
    below.plot([place for place, _ in held], [peak for _, peak in held], **looks)


def _draw_law(above: Axes, records: Sequence[Record], middle: Point, axis: str) -> None:
    law, along = laws(records).get(middle.work), _along(records, middle, axis)
    if law is None or not along:
        return
    places = [record["settings"][axis] for record in along]
    heights = [law(sizes_of(Point(**record["settings"]))) for record in along]
    above.plot(places, heights, color=_look(along)["color"], linewidth=1.0)


def _look(along: Sequence[Record]) -> dict[str, Any]:
    if not along:
        return {}
    work = along[0]["settings"]["work"]
    return {**look(WORKS.index(work)), "linestyle": "", "label": work}


def _label(above: Axes, below: Axes, axis: str) -> None:
    places = sorted({float(place) for line in above.lines for place in np.asarray(line.get_xdata())})
    above.set_title(_TITLES[axis])
    for axes in (above, below):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=False, which="minor")
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
