"""The pairs that are measured: the published loop, and the library doing the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fedcl_distill.augmentation import NoAugmentation, SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget, Engine
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources import TrainedOnSynthetic
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import MatchContext, Replayed, TrajectoryGradient, TrajectoryMatching, Unrolled
from fedcl_distill.training import TrainConfig, fit, predict
from simulations.bench.workload import Tick, Ticking, Workload
from simulations.plain.judging import PlainJudge
from simulations.plain.matching import PlainDM, PlainDSA, PlainMatching
from simulations.plain.network import PlainConvNet
from simulations.plain.trajectory import plain_trajectory_step

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
