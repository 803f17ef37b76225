"""What is measured: one axis at a time, the others at their middle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fedcl_distill.errors import SettingsError

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


@dataclass(frozen=True)
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
    images_per_class: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    classes: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    size: tuple[int, ...] = (8, 16, 32, 64)
    width: tuple[int, ...] = (16, 32, 64, 128)
    clients: tuple[int, ...] = (10, 100, 1000)
    real_batch_per_class: int = 64
    repeats: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        unknown = sorted(set(self.works) - set(WORKS))
        if unknown:
            raise SettingsError(f"unknown work {', '.join(unknown)}; known: {', '.join(WORKS)}")
        for field in fields(self)[1:]:
            given = getattr(self, field.name)
            values = given if isinstance(given, tuple) else (given,)
            if not values or min(values) < 1:
                raise SettingsError(f"{field.name} needs numbers of at least 1, got {given}")

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
