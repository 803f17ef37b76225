"""One measurement, in the process that does nothing else, on random images: what they show does not change the cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fedcl_distill.data import LabelledData, Normalisation, Splits
from fedcl_distill.seeding import generator_for
from simulations.bench.cases import CASES, EPOCHS
from simulations.bench.workload import Tick, Ticker, Workload
from simulations.measuring.costs import Meter
from simulations.measuring.machine import tune_allocator
from simulations.scaling.settings import DM_STEP, EPOCH, Point


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
    shape = (len(labels), 3, point.size, point.size)
    samples = torch.randint(256, shape, dtype=torch.uint8, generator=generator_for(0, "images"))
    names = tuple(map(str, range(point.classes)))
    # With a normalisation that nobody measured: measuring takes memory that the process would keep.
    return LabelledData(samples, labels, names, Normalisation((0.5,) * 3, (0.25,) * 3), name="random")


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
