"""The library beside the published loops: every side of every case in a fresh process, in turns, in CPU-seconds."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fedcl_distill.augmentation import NoAugmentation, SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget, Callback, Engine
from fedcl_distill.engine.loop import Run
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources import TrainedOnSynthetic
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import MatchContext, Replayed, TrajectoryGradient, TrajectoryMatching, Unrolled
from fedcl_distill.settings import Count, Natural, settings
from fedcl_distill.training import TrainConfig, fit, predict
from simulations.costs import Meter
from simulations.data import load_splits
from simulations.dev.reference_loops import (
    PlainConvNet,
    PlainDM,
    PlainDSA,
    PlainJudge,
    PlainMatching,
    plain_trajectory_step,
)
from simulations.formats import ABSENT, byte_size
from simulations.running.processes import in_fresh_process, tune_allocator
from simulations.running.progress import Watcher
from simulations.running.runs import Record, append_record, make_record
from simulations.settings import without_places
from simulations.tables.comparison import Table

_MATRIX = 1024
_MATRIX_REPEATS = 15


def matrix_rate() -> float:
    """GFLOP per CPU-second of this process's float32 matrix product, of two square matrices of 1,024 a side."""

    left, right = torch.randn(2, _MATRIX, _MATRIX, generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(_MATRIX_REPEATS):
        before = time.process_time()
        left @ right
        taken.append(time.process_time() - before)
    return 2 * _MATRIX**3 / statistics.median(taken) / 1e9


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, inside its block, the operations of convolutions and matrix products by PyTorch's own formulas.

    PyTorch's ``FlopCounterMode`` counts them module by module, by hooks that fail where a network whose weights are
    constant is differentiated in its inputs.

    Attributes:
        total: operations so far; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


Tick = Callable[[], None]
"""Called before the first unit of work and after each."""


@settings
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
    images_per_class: Count = 10
    width: Count = 128
    real_batch_per_class: Count = 256
    student_steps: Count = 10
    student_batch: Count = 100
    test_limit: Count = 2000
    repeats: Natural = 3
    threads: Count = 1

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the measurement: everything but places on this computer."""
        return without_places(asdict(self))

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


def measure(case: str, side: str, work: Mapping[str, Any]) -> dict[str, Any]:
    """Do the side of the case and return its figures; ``work`` holds the fields of a :class:`Workload`."""
    workload = Workload(**work)
    if side != PLAIN:  # what the command line does for every run of the library
        tune_allocator()
    do, data, ticker, meter = CASES[case][side], workload.load(), Ticker(), Meter()
    do(workload, data, ticker)
    cost = meter.cost()
    return {
        "operations": operations(do, workload, data) if side == PLAIN else None,
        "seconds": ticker.seconds,
        "cpu_seconds": ticker.cpu_seconds,
        "peak_bytes": cost.own_peak_bytes,
        "matrix_rate": matrix_rate(),
    }


def operations(side: Side, work: Workload, data: Splits) -> int:
    """Floating-point operations of one unit, in convolutions and matrix products."""
    counter = OperationCounter()
    side(replace(work, repeats=1), data, Window(counter, 1))
    return counter.total


Side = Callable[[Workload, Splits, Tick], None]
"""Does ``repeats + 1`` units of the work and ticks around each."""

PLAIN = "plain"


def _do(work: Workload, tick: Tick, unit: Callable[[int], object]) -> None:
    """All units of the work, each given its number, with a tick around each."""
    tick()
    for number in range(work.repeats + 1):
        unit(number)
        tick()


def _plain_matching(kind: type[PlainMatching]) -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        loop = kind(data.train, work.images_per_class, width=work.width, real_batch_per_class=work.real_batch_per_class)
        _do(work, tick, lambda _: loop.step())

    return run


def _matching(method: str, precision: str = "float32") -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        engine = build_method(
            method, architecture=_architecture(work, precision), real_batch_per_class=work.real_batch_per_class
        )
        assert isinstance(engine, Engine)
        if isinstance(engine.networks, TrainedOnSynthetic):  # a unit is a matching; training between is another case
            engine = replace(engine, networks=engine.networks.start)
        budget = Budget(steps=work.repeats + 1)
        engine.distil(data.train, work.images_per_class, seed=0, budget=budget, callbacks=[Ticking(tick)])

    return run


def _plain_trajectory(work: Workload, data: Splits, tick: Tick) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ends = [PlainConvNet(data.train.sample_shape, data.train.num_classes, work.width) for _ in range(2)]
    start, end = ({name: one.detach() for name, one in network.named_parameters()} for network in ends)
    images, labels = _some_images(work, data)
    rate = torch.tensor(0.01, requires_grad=True)
    _do(
        work,
        tick,
        lambda unit: plain_trajectory_step(
            ends[0],
            start,
            end,
            images,
            labels,
            steps=work.student_steps,
            learning_rate=rate,
            batch_size=work.student_batch,
            seed=unit,
        ),
    )


def _trajectory(gradient: TrajectoryGradient, precision: str = "float32") -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        shape, classes = data.train.sample_shape, data.train.num_classes
        ends = [_architecture(work, precision).build(shape, classes, seed=seed) for seed in range(2)]
        images, labels = _some_images(work, data)
        rate = torch.tensor(0.01, requires_grad=True)
        objective = TrajectoryMatching(
            steps=work.student_steps,
            batch_size=work.student_batch,
            augmentation=SiameseAugmentation(),
            gradient=gradient,
        )
        real = RealSampler(data.train, torch.device("cpu"))
        side = SyntheticBatch(images, labels, labels, {"learning_rate": rate})

        def match(unit: int) -> None:
            view = MatchContext(ends[0], NoAugmentation().draw(classes, shape, torch.Generator()), unit, ends[1])
            for loss in objective.losses(view, objective.target(view, real), side):
                loss.backward()  # type: ignore[no-untyped-call]

        _do(work, tick, match)

    return run


def _some_images(work: Workload, data: Splits) -> tuple[Tensor, Tensor]:
    rows = torch.cat([data.train.indices_of(label)[: work.images_per_class] for label in range(data.train.num_classes)])
    return data.train.inputs(rows).requires_grad_(), data.train.labels[rows]


def _plain_epoch(work: Workload, data: Splits, tick: Tick) -> None:
    judge = PlainJudge(data.train.sample_shape, data.train.num_classes, work.width)
    images, labels = _some_images(work, data)
    _do(work, tick, lambda _: judge.train(images.detach(), labels, epochs=EPOCHS))


def _epoch(precision: str) -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        network = _network(work, data, precision)
        images, labels = _some_images(work, data)
        train_config = TrainConfig(epochs=EPOCHS, augmentation=SiameseAugmentation())
        _do(work, tick, lambda _: fit(network, images.detach(), labels, train_config, seed=0))

    return run


def _plain_test(work: Workload, data: Splits, tick: Tick) -> None:
    judge = PlainJudge(data.train.sample_shape, data.train.num_classes, work.width)
    _do(work, tick, lambda _: judge.accuracy(data.test))


def _test(precision: str) -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        network = _network(work, data, precision)
        _do(work, tick, lambda _: predict(network, data.test))

    return run


def _network(work: Workload, data: Splits, precision: str) -> Network:
    return _architecture(work, precision).build(data.train.sample_shape, data.train.num_classes, seed=0)


def _architecture(work: Workload, precision: str) -> Architecture:
    return Architecture("convnet", {"width": work.width, "precision": precision})


EPOCHS = 5
"""In a unit of the training case."""

CASES: dict[str, dict[str, Side]] = {
    "DM step": {PLAIN: _plain_matching(PlainDM), "float32": _matching("dm"), "bfloat16": _matching("dm", "bfloat16")},
    "DSA step": {
        PLAIN: _plain_matching(PlainDSA),
        "float32": _matching("dsa"),
        "bfloat16": _matching("dsa", "bfloat16"),
    },
    "MTT inner loop": {
        PLAIN: _plain_trajectory,
        "float32, replayed": _trajectory(Replayed()),
        "float32, unrolled": _trajectory(Unrolled()),
        "bfloat16, unrolled": _trajectory(Unrolled(), "bfloat16"),
    },
    "evaluation, training": {PLAIN: _plain_epoch, "float32": _epoch("float32"), "bfloat16": _epoch("bfloat16")},
    "evaluation, testing": {PLAIN: _plain_test, "float32": _test("float32"), "bfloat16": _test("bfloat16")},
}
"""For each case the sides that do it, the published loop first."""


_COLUMNS = ("case", "side", "CPU-seconds", "times as fast", "of matrix product", "memory")
_NOTES = (
    "CPU-seconds: median over all measured units; in brackets the fastest and the slowest.",
    "Times as fast: the plain loop's median over this one's, of the same run.",
    "Of matrix product: convolutions and products of the plain loop's unit per CPU-second, as a fraction of what the "
    "same process reaches in a float32 matrix product of 1,024 × 1,024.",
    "Memory: peak of the process above interpreter and data.",
)


def table_of_bench(records: Sequence[Record]) -> Table:
    """One row for every side of every case, in the order in which they were measured."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["settings"]["case"], record["settings"]["side"]), []).append(record)
    rows = tuple(_row(case, side, group, groups.get((case, PLAIN), [])) for (case, side), group in groups.items())
    return Table(describe_work(records[0]["settings"]), _COLUMNS, rows, _NOTES)


def describe_work(work: Mapping[str, Any]) -> str:
    """The workload in a few words, given as a record's settings hold it."""
    return (
        f"{work['data']} · {work['images_per_class']} images a class, {work['real_batch_per_class']} real ones · "
        f"width {work['width']} · {work['threads']} threads"
    )


def _row(case: str, side: str, own: Sequence[Record], plain: Sequence[Record]) -> tuple[str, ...]:
    taken = _values(own, "cpu_seconds")
    median, of_plain = statistics.median(taken), statistics.median(_values(plain, "cpu_seconds") or [float("nan")])
    peaks = [one["metrics"]["peak_bytes"] for one in own if one["metrics"]["peak_bytes"] is not None]
    return (
        case,
        side,
        f"{median:.2f} ({min(taken):.2f}–{max(taken):.2f})",
        f"{of_plain / median:.2f}",
        _share(own, plain, median),
        byte_size(max(peaks)) if peaks else ABSENT,
    )


def _share(own: Sequence[Record], plain: Sequence[Record], seconds: float) -> str:
    operations = [one["metrics"]["operations"] for one in plain if one["metrics"]["operations"]]
    if not operations:
        return ABSENT
    rate = statistics.median(one["metrics"]["matrix_rate"] for one in own)
    return f"{100 * operations[0] / seconds / 1e9 / rate:.0f} %"


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [value for record in records for value in record["metrics"][name]]


KIND = "bench"
_MEASURE = "simulations.dev.bench:measure"


def run_bench(
    work: Workload, cases: Sequence[str], rounds: int, results_path: str | os.PathLike[str], watcher: Watcher
) -> list[Record]:
    """Measure ``cases``, each ``rounds`` times with its sides in turns, and append each measurement as it is there.

    Sides take turns so that what else the machine does meanwhile meets all of them.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    turns = [(case, side) for case in cases for _ in range(rounds) for side in CASES[case]]
    records = []
    with watcher.stage(f"{len(turns)} measurements") as stage:
        for position, (case, side) in enumerate(turns):
            stage.update(position / len(turns), f"{case}, {side}")
            started = time.monotonic()
            request = {"case": case, "side": side, "work": asdict(work)}
            metrics = in_fresh_process(_MEASURE, request, work.threads)
            settings = {"case": case, "side": side, **work.as_record()}
            records.append(make_record(KIND, settings, metrics, time.monotonic() - started))
            append_record(results_path, records[-1])
    return records
