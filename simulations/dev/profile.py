"""Where the time goes, by groups of operators: every case in a process that does nothing else."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from functools import wraps
from itertools import islice
from types import TracebackType
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from fedcl_distill.augmentation import Draw, SiameseAugmentation, augmentation_for
from fedcl_distill.context import RealSampler
from fedcl_distill.data import LabelledData, Splits, partition
from fedcl_distill.engine import Budget
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.training import TrainConfig
from simulations.dev.bench import CASES as SIDES
from simulations.dev.bench import Side, Tick, Ticker, Ticking, Window, Workload, describe_work, matrix_rate, operations
from simulations.running.processes import in_fresh_process, tune_allocator
from simulations.running.progress import Watcher
from simulations.running.runs import Record, append_record, make_record
from simulations.tables.comparison import Table

CONVOLUTION, NORM, MATRIX = "convolution", "norm, activation, pooling", "matrix product"
AUGMENTATION, OPTIMISER, DATA, WEIGHTS = "augmentation", "optimiser", "data", "initial weights"
BACKWARD, OTHER, OUTSIDE = "backward bookkeeping", "other operators", "outside operators"

GROUPS = (CONVOLUTION, NORM, AUGMENTATION, MATRIX, OPTIMISER, DATA, WEIGHTS, BACKWARD, OTHER, OUTSIDE)
"""In the order of tables. "Outside operators" is what no operator of PyTorch was at work in: Python, above all."""

RANGE = "group: "
"""What the name of a range starts with that puts everything inside it into the group named after it."""

_NAMES = {
    CONVOLUTION: r"aten::(_|mkldnn_|thnn_|slow_)?conv",
    NORM: r"_?NormReluPool|aten::(native_)?(group|batch|instance|layer)_norm|aten::(relu|threshold|leaky_relu)"
    r"|aten::(adaptive_)?(avg|max)_pool",
    AUGMENTATION: r"aten::(affine_grid|grid_sampler)",
    MATRIX: r"aten::(linear|matmul|addmm|mm|bmm|baddbmm|einsum|cholesky|linalg_(solve|cholesky|eigh))",
    OPTIMISER: r"Optimizer\.(step|zero_grad)#",
    DATA: r"enumerate\(DataLoader\)#",
    BACKWARD: r"torch::autograd::AccumulateGrad",
}
_PATTERNS = {group: re.compile(pattern) for group, pattern in _NAMES.items()}


def seconds_by_group(events: Iterable[Any], whole: float) -> dict[str, float]:
    """Seconds of every group of :data:`GROUPS`; they add up to ``whole``, the seconds of the recording.

    An operator counts where the outermost operator or range around it belongs that names a group. An operator of the
    backward pass that names none itself belongs to the group of the operator it differentiates: autograd gives both
    one sequence number.

    Args:
        events: the ``FunctionEvent`` objects that ``torch.profiler.profile.events()`` returns, of one thread.
        whole: wall-clock seconds that the recording lasted.
    """
    spent = dict.fromkeys(GROUPS, 0.0)
    roots = sorted((one for one in events if one.cpu_parent is None), key=lambda one: one.time_range.start)
    differentiated: dict[int, str] = {}
    for root in roots:
        for event, group in _grouped(root, differentiated):
            spent[group] += event.self_cpu_time_total / 1e6
    spent[OUTSIDE] = max(whole - sum(spent.values()), 0.0)
    return spent


def group_of(name: str) -> str | None:
    """The group that the operator or range called ``name`` names; None where it names none."""
    if name.startswith(RANGE):
        return name.removeprefix(RANGE)
    return next((group for group, pattern in _PATTERNS.items() if pattern.match(name)), None)


def _grouped(event: Any, differentiated: dict[int, str], around: str | None = None) -> Iterator[tuple[Any, str]]:
    """``event`` and what lies inside, each with its group; forward operators leave theirs in ``differentiated``."""
    engine = event.name.startswith("autograd::engine::evaluate_function")
    number, backward = event.sequence_nr, "Backward" in event.name
    group = around or (None if engine else group_of(event.name))
    if group is None and backward and not engine:
        group = differentiated.get(number)
    if number >= 0 and not backward:  # the last operator with a number is the one that autograd knows by it
        differentiated[number] = group or OTHER
    yield event, group or (BACKWARD if engine else OTHER)
    for child in sorted(event.cpu_children, key=lambda one: one.time_range.start):
        yield from _grouped(child, differentiated, group)


_METHODS: tuple[tuple[type, str, str], ...] = (
    (RealSampler, "draw", DATA),
    (RealSampler, "batch", DATA),
    (LabelledData, "inputs", DATA),
    (Architecture, "build", WEIGHTS),
)


@contextmanager
def ranges() -> Iterator[None]:
    """Inside the block, drawing and normalising data, augmentation and the making of networks show in a recording."""
    with ExitStack() as stack:
        for owner, name, group in _METHODS:
            stack.enter_context(patch.object(owner, name, _in_range(getattr(owner, name), group)))
        stack.enter_context(patch.object(SiameseAugmentation, "draw", _drawing(SiameseAugmentation.draw)))
        yield


def _in_range(function: Callable[..., Any], group: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(RANGE + group):
            return function(*arguments, **named)

    return call


def _drawing(draw: Callable[..., Draw]) -> Callable[..., Draw]:
    """Drawing parameters is augmentation, and so is applying what was drawn."""
    drawn = _in_range(draw, AUGMENTATION)

    @wraps(draw)
    def call(*arguments: Any, **named: Any) -> Draw:
        return _in_range(drawn(*arguments, **named).__call__, AUGMENTATION)

    return call


CLIENTS = 4
SAMPLES = 1000
"""Training samples of a round, all clients together, and of all experiences."""

_DISTIL_STEPS = 2
_EPOCHS = 2
_EXPERIENCES = 5


def _frepo(work: Workload, data: Splits, tick: Tick) -> None:
    method = build_method("frepo", architecture=_architecture(work))
    budget = Budget(steps=work.repeats + 1)
    method.distil(data.train, work.images_per_class, seed=0, budget=budget, callbacks=[Ticking(tick)])


def _round(strategy: str) -> Side:
    def run(work: Workload, data: Splits, tick: Tick) -> None:
        from simulations.scenarios.federated import quiet_flower  # here, because Flower takes seconds to import

        with quiet_flower():
            _rounds(strategy, work, data, tick)

    return run


def _rounds(name: str, work: Workload, data: Splits, tick: Tick) -> None:
    """As ``run_server`` does it, but for the server's epochs, whose hundreds are the case "evaluation, training"."""
    from strategies.federated import (
        FedAvg,
        InProcessGrid,
        Learner,
        OneShot,
        ReplyCollector,
        ServerContext,
        make_client_app,
    )
    from strategies.federated.answers import weights_of

    through = {"architecture": _text(work), "real_batch_per_class": work.real_batch_per_class}
    one_shot = OneShot({"name": "dm", **through}, images_per_class=work.images_per_class, steps=_DISTIL_STEPS)
    strategy = one_shot if name == "one-shot" else FedAvg()
    train_config = TrainConfig(epochs=_EPOCHS, augmentation=augmentation_for(data.train))
    shape, classes = data.test.sample_shape, data.test.num_classes
    learner = Learner(Architecture.parse(_text(work)), lambda samples: train_config, shape, classes, seed=0)
    parts = partition(_some(data.train), "iid", clients=CLIENTS, seed=0)
    app = make_client_app(lambda context: parts[int(context.node_config["partition-id"])])
    with InProcessGrid(app, CLIENTS) as grid:
        tick()
        for _ in range(work.repeats + 1):
            context = ServerContext(data.test, learner, ReplyCollector(CLIENTS, quorum=1.0))
            weights = strategy.server(context).start(grid, weights_of(learner.fresh()), num_rounds=1).arrays
            learner.class_accuracies(weights, data.test)
            tick()


def _experience(work: Workload, data: Splits, tick: Tick) -> None:
    """Two classes each; the first one, without anything to replay yet, is the unit that warms up."""
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    from strategies.continual import DistilledMemory, Replay, class_incremental

    if work.repeats >= _EXPERIENCES:
        raise SettingsError(f"there are {_EXPERIENCES} experiences, of which the first is not measured")
    data = Splits(_some(data.train), data.test)
    budget = bytes_of_counts([work.images_per_class] * data.train.num_classes, data.train, 8)
    method = build_method("dm", architecture=_architecture(work), real_batch_per_class=work.real_batch_per_class)
    memory = DistilledMemory(budget, distiller=method, budget=Budget(steps=_DISTIL_STEPS))
    network = _architecture(work).build(data.train.sample_shape, data.train.num_classes, seed=0)
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=64,
        train_epochs=_EPOCHS,
        plugins=[Replay(memory, like=data.train)],
        evaluator=EvaluationPlugin(),
    )
    experiences = class_incremental(data, _EXPERIENCES).train_stream
    tick()
    for experience in islice(experiences, work.repeats + 1):
        strategy.train(experience)
        tick()


def _architecture(work: Workload) -> Architecture:
    return Architecture("convnet", {"width": work.width})


def _text(work: Workload) -> str:
    return f"convnet:width={work.width}"


def _some(data: LabelledData) -> LabelledData:
    """:data:`SAMPLES` samples from all over ``data``."""
    return data.subset(torch.linspace(0, len(data) - 1, min(SAMPLES, len(data))).long())


CASES: dict[str, Side] = {
    "DM step": SIDES["DM step"]["float32"],
    "DSA step": SIDES["DSA step"]["float32"],
    "FRePo step": _frepo,
    "MTT step": SIDES["MTT inner loop"]["float32, replayed"],
    "evaluation, training": SIDES["evaluation, training"]["float32"],
    "evaluation, testing": SIDES["evaluation, testing"]["float32"],
    "round of FedAvg": _round("fedavg"),
    "round of one-shot DM": _round("one-shot"),
    "experience, distilled memory": _experience,
}
"""What each does, once for every unit."""


def measure(case: str, work: Mapping[str, Any]) -> dict[str, Any]:
    """Do the case three times and return its figures: by the clock, recorded by the profiler, and counted.

    Returns:
        ``cpu_seconds`` and ``seconds`` of each unit, without profiler; ``shares`` of each group in the recorded units,
        which add up to 1; ``operations`` of a unit in convolutions and matrix products; ``matrix_rate`` in GFLOP per
        CPU-second.
    """
    tune_allocator()
    workload = Workload(**work)
    side, data, ticker = CASES[case], workload.load(), Ticker()
    side(workload, data, ticker)
    return {
        "seconds": ticker.seconds,
        "cpu_seconds": ticker.cpu_seconds,
        "shares": shares(side, workload, data),
        "operations": operations(side, workload, data),
        "matrix_rate": matrix_rate(),
    }


def shares(side: Side, work: Workload, data: Splits) -> dict[str, float]:
    """The share of each group in the time of the units that ``side`` does, but for the first."""
    recording = _Recording()
    with ranges():
        side(work, data, Window(recording, work.repeats))
    spent = recording.seconds_by_group()
    whole = sum(spent.values())
    return {group: seconds / whole for group, seconds in spent.items()}


class _Recording(AbstractContextManager["_Recording"]):
    """The operators that run while it is open, and how long that was."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._seconds = 0.0

    def __enter__(self) -> _Recording:
        self._profile.__enter__()  # type: ignore[no-untyped-call]
        self._seconds = -time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seconds += time.perf_counter()
        self._profile.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def seconds_by_group(self) -> dict[str, float]:
        return seconds_by_group(self._profile.events() or (), self._seconds)  # type: ignore[no-untyped-call]


_NOTES = (
    "CPU-seconds of a unit: median, without the profiler. Groups: CPU-seconds and share of the recorded time.",
    "Outside operators: Python, Flower and Avalanche, and the profiler's own work, which is larger the smaller the "
    "operators are.",
    "GFLOP/s: operations in convolutions and matrix products per CPU-second; in brackets the share of what the "
    "same process reaches in a float32 matrix product of 1,024 × 1,024.",
)


def table_of_profile(records: Sequence[Record]) -> Table:
    """A row for every case that was profiled: what it takes, and what of it each group takes."""
    rows = (("CPU-seconds of a unit", *(f"{_seconds(one):.3g}" for one in records)),)
    groups = tuple((group, *(_share(one, group) for one in records)) for group in GROUPS)
    rates = (("GFLOP/s", *map(_rate, records)),)
    columns = ("group", *(str(one["settings"]["case"]) for one in records))
    return Table(describe_work(records[0]["settings"]), columns, (*rows, *groups, *rates), _NOTES)


def _share(record: Record, group: str) -> str:
    share = record["metrics"]["shares"][group]
    return f"{share * _seconds(record):.2g} ({100 * share:.0f} %)"


def _rate(record: Record) -> str:
    rate = record["metrics"]["operations"] / _seconds(record) / 1e9
    return f"{rate:.0f} ({100 * rate / record['metrics']['matrix_rate']:.0f} %)"


def _seconds(record: Record) -> float:
    return float(statistics.median(record["metrics"]["cpu_seconds"]))


KIND = "profile"
_MEASURE = "simulations.dev.profile:measure"


def run_profile(
    work: Workload, cases: Sequence[str], results_path: str | os.PathLike[str], watcher: Watcher
) -> list[Record]:
    """Profile ``cases`` and append the figures of each as soon as they are there.

    Raises:
        ProcessError: a process broke; the message ends with what it said.
    """
    records = []
    with watcher.stage(f"{len(cases)} profiles") as stage:
        for position, case in enumerate(cases):
            stage.update(position / len(cases), case)
            started = time.monotonic()
            metrics = in_fresh_process(_MEASURE, {"case": case, "work": asdict(work)}, work.threads)
            settings = {"case": case, **work.as_record()}
            records.append(make_record(KIND, settings, metrics, time.monotonic() - started))
            append_record(results_path, records[-1])
    return records
