"""How time and memory grow: one axis at a time, the others at their middle, every point in a fresh process."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from fedcl_distill.data import DataSpec, LabelledData, Normalisation, Splits
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, settings
from simulations.costs import Meter, tune_allocator
from simulations.dev.bench import CASES, EPOCHS, Tick, Ticker, Workload
from simulations.formats import ABSENT, byte_size
from simulations.report.drawing import look, new_figure, standalone, style, to_svg
from simulations.running.compare import compare
from simulations.running.processes import in_fresh_process
from simulations.running.progress import Watcher
from simulations.running.runs import Record, Run, make_record, read_records, settings_key
from simulations.tables.comparison import Table

Sizes = Mapping[str, float]
"""Positive numbers by name."""


@dataclass(frozen=True)
class PowerLaw:
    """``factor`` · Π size^exponent over the sizes that ``exponents`` names.

    Attributes:
        max_error: of the values that it was fitted to: the largest of |predicted / measured − 1|.
        values: how many these were.
    """

    factor: float
    exponents: Mapping[str, float]
    max_error: float = 0.0
    values: int = 0

    def __call__(self, sizes: Sizes) -> float:
        """What the law gives at ``sizes``."""
        product = np.prod([sizes[name] ** power for name, power in self.exponents.items()])
        return self.factor * float(product)

    def __str__(self) -> str:
        powers = (f"{name}^{power:.2f}" for name, power in self.exponents.items())
        return " · ".join([f"{self.factor:.2e}", *powers])


def fit_power_law(sizes: Sequence[Sizes], values: Sequence[float]) -> PowerLaw:
    """The law that makes the sum of squared differences of logarithms smallest.

    A size that is the same for all values takes no part: it would be one with the factor.

    Raises:
        DataError: a number is not positive and finite, or there are fewer values than the law has free numbers.
    """
    names = [name for name in (sizes[0] if sizes else {}) if len({one[name] for one in sizes}) > 1]
    if len(values) <= len(names) or len(values) != len(sizes):
        raise DataError(f"a law of {len(names)} sizes needs more than as many values, got {len(values)}")
    table = np.array([[value, *(one[name] for name in names)] for one, value in zip(sizes, values, strict=True)])
    if not (np.isfinite(table).all() and (table > 0).all()):
        raise DataError("a power law takes positive, finite numbers")
    logarithms = np.log(table)
    wanted = logarithms[:, 0].copy()
    logarithms[:, 0] = 1.0
    solution, _, rank, _ = np.linalg.lstsq(logarithms, wanted, rcond=None)
    if rank < len(names) + 1:
        raise DataError(f"these values cannot tell the exponents of {', '.join(names)} apart")
    errors = np.abs(np.exp(logarithms @ solution - wanted) - 1)
    exponents = dict(zip(names, solution[1:].tolist(), strict=True))
    return PowerLaw(float(np.exp(solution[0])), exponents, float(errors.max()), len(values))


DM_STEP, EPOCH, ROUND = "DM step", "evaluation epoch", "FedAvg round"
WORKS = (DM_STEP, EPOCH, ROUND)
AXES = ("images_per_class", "classes", "size", "width", "clients")


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        work: one of :data:`WORKS`.
        images_per_class: synthetic images of each class; in a round, what a client holds of each.
        classes: how many.
        size: pixels a side of the images, which have three channels.
        width: of the ConvNet.
        clients: of a round; 1 where there is no federation.
        real_batch_per_class: real images of each class in a step.
        repeats: units that are measured, after one that is not.
        threads: of the process.
    """

    work: str
    images_per_class: int
    classes: int
    size: int
    width: int
    clients: int
    real_batch_per_class: int
    repeats: int
    threads: int

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the measurement."""
        return asdict(self)


@settings
class ScalingSettings:
    """The values of each axis. While one axis is followed, the others stay at their middle (the upper one of two).

    Attributes:
        works: what is measured: "DM step", "evaluation epoch", "FedAvg round". A round is of tiny models and clients,
            and follows the last axis alone, so that it shows what a client costs besides training.
        images_per_class: synthetic images of each class.
        classes: how many.
        size: pixels a side of the images, which have three channels.
        width: of the ConvNet.
        clients: of a FedAvg round in process.
        real_batch_per_class: real images of each class in a DM step.
        repeats: units that are measured, after one that is not.
        threads: of each process.

    Raises:
        SettingsError: on construction, if a number is not positive, an axis is empty or a work unknown.
    """

    works: tuple[str, ...] = WORKS
    images_per_class: tuple[Count, ...] = (1, 2, 5, 10, 20, 50)
    classes: tuple[Count, ...] = (2, 5, 10, 20, 50, 100)
    size: tuple[Count, ...] = (8, 16, 32, 64)
    width: tuple[Count, ...] = (16, 32, 64, 128)
    clients: tuple[Count, ...] = (10, 100, 1000)
    real_batch_per_class: Count = 64
    repeats: Count = 1
    threads: Count = 1

    def __post_init__(self) -> None:
        unknown = sorted(set(self.works) - set(WORKS))
        if unknown:
            raise SettingsError(f"unknown work {', '.join(unknown)}; known: {', '.join(WORKS)}")
        for field in fields(self)[1:]:
            if getattr(self, field.name) == ():
                raise SettingsError(f"{field.name} needs at least one number")

    def points(self) -> Iterator[Point]:
        """Every measurement once, axis by axis."""
        seen = set()
        for work in self.works:
            for axis in axes_of(work):
                for value in getattr(self, axis):
                    point = replace(self.middle(work), **{axis: value})
                    if point not in seen:
                        seen.add(point)
                        yield point

    def middle(self, work: str) -> Point:
        """What all axes cross in."""
        common = {"real_batch_per_class": self.real_batch_per_class, "repeats": self.repeats, "threads": self.threads}
        if work == ROUND:
            tiny = {"images_per_class": 2, "classes": 2, "size": 8, "width": 8}
            return Point(work, **tiny, clients=_middle(self.clients), **common)
        return Point(work, **{axis: _middle(getattr(self, axis)) for axis in AXES[:-1]}, clients=1, **common)


def axes_of(work: str) -> tuple[str, ...]:
    """The axes along which ``work`` is followed."""
    return AXES[-1:] if work == ROUND else AXES[:-1]


def _middle(values: tuple[int, ...]) -> int:
    return sorted(values)[len(values) // 2]


def measure(**point: Any) -> dict[str, Any]:
    """Do the work of a :class:`Point`, given by its fields.

    Returns:
        ``cpu_seconds`` and ``seconds`` of each unit; ``peak_bytes`` that the process took above libraries and data.
    """
    tune_allocator()
    wanted, ticker = Point(**point), Ticker()
    _use_once(wanted)
    data = random_images(wanted)
    meter = Meter()
    units = _do(wanted, data, ticker)
    return {
        "cpu_seconds": [taken / units for taken in ticker.cpu_seconds],
        "seconds": [taken / units for taken in ticker.seconds],
        "peak_bytes": meter.cost().own_peak_bytes,
    }


def random_images(point: Point) -> LabelledData:
    """As many as the work needs, in order of class."""
    per_class = max(point.images_per_class * point.clients, point.real_batch_per_class)
    labels = torch.arange(point.classes).repeat_interleave(per_class)
    shape = (3, point.size, point.size)
    samples = torch.randint(256, (len(labels), *shape), dtype=torch.uint8, generator=generator_for(0, "images"))
    names = tuple(map(str, range(point.classes)))
    # With a normalisation that nobody measured: measuring takes memory that the process would keep.
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    return LabelledData(samples, labels, DataSpec(shape, names, normalisation, allow_hflip=True), name="random")


def _use_once(point: Point) -> None:
    """The same with almost nothing, so that what libraries take when they are first used is not the work's."""
    small = replace(
        point, images_per_class=1, classes=2, size=8, width=8, real_batch_per_class=2, clients=min(point.clients, 2)
    )
    _do(small, random_images(small), lambda: None)


def _do(point: Point, data: LabelledData, tick: Tick) -> int:
    """Work and tick; returns how many units lie between two ticks."""
    work = Workload(
        images_per_class=point.images_per_class,
        width=point.width,
        real_batch_per_class=point.real_batch_per_class,
        repeats=point.repeats,
        threads=point.threads,
    )
    if point.work == DM_STEP:
        CASES["DM step"]["float32"](work, Splits(data, data), tick)
        return 1
    if point.work == EPOCH:
        CASES["evaluation, training"]["float32"](work, Splits(data, data), tick)
        return EPOCHS
    _rounds(point, data, tick)
    return 1


def _rounds(point: Point, data: LabelledData, tick: Tick) -> None:
    from simulations.scenarios.federated import quiet_flower  # here, because Flower takes seconds to import
    from strategies.federated import FedAvg, InProcessGrid, make_client_app, run_server

    per_class = torch.arange(len(data)).view(point.classes, -1)[:, : point.images_per_class * point.clients]
    parts = [data.subset(rows.flatten()) for rows in torch.split(per_class, point.images_per_class, dim=1)]
    app = make_client_app(lambda context: parts[int(context.node_config["partition-id"])])
    with quiet_flower(), InProcessGrid(app, point.clients) as grid:
        run_server(
            grid,
            FedAvg(),
            test=parts[0],
            rounds=point.repeats + 1,
            network=f"convnet:width={point.width}",
            on_round=lambda _: tick(),
        )


_MEASURED = ("work", "ipc", "classes", "size", "width", "clients", "CPU-seconds", "memory")
_LAWS = ("CPU-seconds of a", "are about", "measurements", "largest error")
_NOTES = (
    "CPU-seconds: median of the measured units. Memory: peak of the process above libraries and data.",
    "Size: pixels a side, three channels. A FedAvg round is of tiny models, so that it shows what a client costs "
    "besides training.",
)
_LAW_NOTES = (
    "Fitted by least squares on logarithms. Images: of a class, the real ones passed forwards and three times the "
    "synthetic ones, which are passed backwards too; in an epoch the synthetic ones.",
)


def cpu_seconds(record: Record) -> float:
    """Of one unit."""
    return float(statistics.median(record["metrics"]["cpu_seconds"]))


def sizes_of(point: Point) -> Sizes:
    """What a law goes by."""
    if point.work == ROUND:
        return {"clients": point.clients}
    images = point.images_per_class
    return {
        "classes": point.classes,
        "images": point.real_batch_per_class + 3 * images if point.work == DM_STEP else images,
        "pixels": point.size**2,
        "width": point.width,
    }


def laws(records: Sequence[Record]) -> dict[str, PowerLaw]:
    """The law of the CPU-seconds of each work; none where there are too few measurements."""
    found = {}
    for work in dict.fromkeys(record["settings"]["work"] for record in records):
        own = [record for record in records if record["settings"]["work"] == work]
        sizes = [sizes_of(Point(**record["settings"])) for record in own]
        try:
            found[work] = fit_power_law(sizes, [cpu_seconds(record) for record in own])
        except DataError:
            continue
    return found


def table_of_scaling(records: Sequence[Record]) -> Table:
    """One row for every measurement."""
    return Table("How time and memory grow", _MEASURED, tuple(map(_row, records)), _NOTES)


def table_of_laws(found: dict[str, PowerLaw]) -> Table:
    """One row for every law."""
    rows = tuple((work, str(law), str(law.values), f"{100 * law.max_error:.0f} %") for work, law in found.items())
    return Table("Laws", _LAWS, rows, _LAW_NOTES)


def _row(record: Record) -> tuple[str, ...]:
    point, peak = Point(**record["settings"]), record["metrics"]["peak_bytes"]
    sizes = (point.images_per_class, point.classes, point.size, point.width, point.clients)
    memory = ABSENT if peak is None else byte_size(peak)
    return (point.work, *map(str, sizes), f"{cpu_seconds(record):.3g}", memory)


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


KIND = "scaling"
_MEASURE = "simulations.dev.scaling:measure"


def run_scaling(points: Sequence[Point], results_path: str | os.PathLike[str], watcher: Watcher) -> list[Record]:
    """Measure what ``results_path`` does not hold yet, and return the measurements of all points, in their order.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    compare([Run(KIND, point) for point in points], results_path, watcher, perform=_measure)
    known = {record["key"]: record for record in read_records(results_path)}
    return [known[settings_key(KIND, point.as_record())] for point in points]


def _measure(run: Run, watcher: Watcher, folder: Path) -> Record:
    point, started = run.settings, time.monotonic()
    assert isinstance(point, Point)
    metrics = in_fresh_process(_MEASURE, point.as_record(), point.threads)
    return make_record(KIND, point.as_record(), metrics, time.monotonic() - started)
