"""What is measured, and how time is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from fedcl_distill.data import Splits
from fedcl_distill.engine import Callback
from fedcl_distill.engine.loop import Run
from fedcl_distill.errors import SettingsError
from simulations.scenarios.data import load_splits

Tick = Callable[[], None]
"""Called before the first unit of work and after each."""


@dataclass(frozen=True)
class Workload:
    """The work that both sides do.

    Attributes:
        data: name of the data set; images.
        data_root: folder to search first; a place on this computer, and no part of :meth:`as_record`.
        images_per_class: synthetic images of each class.
        width: of the ConvNets.
        real_batch_per_class: real images of each class in a matching step.
        student_steps: steps of a trajectory's student.
        student_batch: synthetic images in each of them.
        test_limit: test images that are judged.
        repeats: units that are measured, after one that is not.
        threads: of each process.

    Raises:
        SettingsError: on construction, if a number is not positive.
    """

    data: str = "fashion-mnist"
    data_root: str | None = None
    images_per_class: int = 10
    width: int = 128
    real_batch_per_class: int = 256
    student_steps: int = 10
    student_batch: int = 100
    test_limit: int = 2000
    repeats: int = 3
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < (name != "repeats"):
                raise SettingsError(f"{name} must be positive, got {value}")

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the measurement: everything but places on this computer."""
        record = asdict(self)
        del record["data_root"]
        return record

    def load(self) -> Splits:
        """The data, with no more test images than are judged.

        Raises:
            SettingsError, DataError: there are no such data.
        """
        splits = load_splits(self.data, root=self.data_root)
        return replace(splits, test=splits.test.subset(torch.arange(min(self.test_limit, len(splits.test)))))


class Ticker:
    """Takes the time between calls: one more reading than there are units."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []

    def __call__(self) -> None:
        self._readings.append((time.monotonic(), time.process_time()))

    @property
    def seconds(self) -> list[float]:
        """Wall-clock seconds of each unit but the first, which warms up."""
        return self._between(0)

    @property
    def cpu_seconds(self) -> list[float]:
        """Seconds of all threads of the process, of each unit but the first."""
        return self._between(1)

    def _between(self, clock: int) -> list[float]:
        times = [reading[clock] for reading in self._readings]
        return [after - before for before, after in pairwise(times[1:])]


class Window:
    """A tick that holds a context open while the units are done that :class:`Ticker` measures."""

    def __init__(self, context: AbstractContextManager[Any], units: int) -> None:
        self._context, self._units, self._calls = context, units, 0

    def __call__(self) -> None:
        self._calls += 1
        if self._calls == 2:
            self._context.__enter__()
        elif self._calls == self._units + 2:
            self._context.__exit__(None, None, None)


class Ticking(Callback):
    """Ticks before the first step of a distillation, and after each."""

    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    def on_start(self, run: Run) -> None:
        self._tick()

    def on_step(self, run: Run) -> None:
        self._tick()
