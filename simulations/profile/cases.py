"""What is profiled: a step of each kind of method, both halves of an evaluation, a round, an experience."""

from __future__ import annotations

from itertools import islice

import torch

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.data import LabelledData, Splits, partition
from fedcl_distill.engine import Budget
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.training import TrainConfig
from simulations.bench.cases import CASES as SIDES
from simulations.bench.cases import Side
from simulations.bench.workload import Tick, Ticking, Workload

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
    from strategies.federated.weights import weights_of

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
