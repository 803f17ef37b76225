"""Measurements as laws and tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fedcl_distill.errors import DataError
from simulations.running.records import Record
from simulations.scaling.power_law import PowerLaw, Sizes, fit_power_law
from simulations.scaling.settings import DM_STEP, ROUND, Point
from simulations.tables.comparison import Table
from simulations.tables.formats import ABSENT, byte_size

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
