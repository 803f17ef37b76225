"""DynaFed (Pi et al. 2023): the global model's own path becomes a synthetic set, with which the server finetunes it.

For some rounds the server averages models and keeps each of them. It then distils a set on which training goes the way
that the global model went, by trajectory matching from noise: no client sends anything for it. From then on, every
averaged model is trained a little on that set, which takes back some of what averaging models of unlike clients lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, Engine, finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import mtt
from fedcl_distill.network_sources import GivenTrajectory
from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, Natural, NonNegative, Positive, settings
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.answers import State, arrays_of, set_as_state, set_from_state, tensors_of, weights_of
from strategies.federated.fedavg import Averaging, ValidatedFedAvg
from strategies.federated.learner import Learner
from strategies.federated.local_training import TrainRequest
from strategies.federated.strategy import ServerContext, register_strategy


@register_strategy("dynafed")
@settings
class DynaFed(Averaging):
    """Models, every round, finetuned on a set that the server distils from their path: see this module.

    Attributes:
        images_per_class: of the server's set.
        collect_rounds: whose models are the trajectory; the first of later rounds that are finetuned is this one.
        segment: rounds from the start to the goal of a piece that is matched.
        student_steps, student_batch_size, student_learning_rate: of the student that learns from the set; see
            :class:`~fedcl_distill.objectives.TrajectoryMatching`. The learning rate is learned; a batch of 0 is all.
        distil_steps: of the server.
        label_learning_rate: of soft labels; 0 keeps hard ones.
        finetune_epochs, finetune_learning_rate: over the set, after each round.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    images_per_class: Count = 10
    collect_rounds: Count = 5
    segment: Count = 2
    student_steps: Count = 20
    student_batch_size: Natural = 0
    student_learning_rate: Positive = 0.02
    distil_steps: Count = 200
    label_learning_rate: NonNegative = 0.0
    finetune_epochs: Count = 20
    finetune_learning_rate: Positive = 0.01

    def __post_init__(self) -> None:
        if self.segment > self.collect_rounds:
            raise SettingsError(f"segment must be at most collect_rounds, got {self.segment} and {self.collect_rounds}")

    def server(self, context: ServerContext) -> DynaFedServer:
        if self.collect_rounds >= context.rounds:
            raise SettingsError(
                f"dynafed collects models of {self.collect_rounds} rounds and then goes on, "
                f"but there are {context.rounds}; take more rounds or fewer collect_rounds"
            )
        replayer = Replayer(self, context.test, self.images_per_class, context.seed, context.device)
        return DynaFedServer(self.request(context), context.learner, context.collector, replayer)


@dataclass(frozen=True)
class Replayer:
    """Distils a set from a trajectory alone.

    Attributes:
        options: how.
        like: gives shape, classes and normalisation; its samples are not looked at.
        images_per_class: of the set.
        seed: of the run.
        device: where to compute.
    """

    options: DynaFed
    like: LabelledData
    images_per_class: int
    seed: int
    device: str = "cpu"

    def distil(self, snapshots: tuple[Network, ...]) -> SyntheticSet:
        """A set on which training leads from each of ``snapshots`` to later ones; it starts as noise.

        Raises:
            SettingsError: there are too few snapshots, or settings do not fit.
            DivergenceError: the loss stopped being finite.
        """
        options = self.options
        engine: Engine = mtt(
            init="noise",
            labels=f"learned:learning_rate={options.label_learning_rate}" if options.label_learning_rate else "hard",
            student_steps=options.student_steps,
            student_batch_size=options.student_batch_size or None,
            student_learning_rate=options.student_learning_rate,
        )
        engine = replace(engine, name="dynafed", networks=GivenTrajectory(snapshots, options.segment))
        seed, budget = derive_seed(self.seed, "replay"), Budget(steps=options.distil_steps)
        nothing = without_content(self.like, self.images_per_class)
        return finished(engine.distil(nothing, self.images_per_class, seed=seed, budget=budget, device=self.device))


def without_content(like: LabelledData, per_class: int) -> LabelledData:
    """Data of the kind of ``like`` that say nothing: ``per_class`` samples of each class, all values the smallest."""
    labels = torch.arange(like.num_classes).repeat_interleave(per_class)
    samples = torch.full((len(labels), *like.sample_shape), like.value_range[0])
    return LabelledData(samples, labels, like.spec, "nothing")


class DynaFedServer(ValidatedFedAvg):
    """Averages models and, once their path is long enough, finetunes each average on a set distilled from that path.

    Args:
        request: what every node is asked.
        learner: trains the global model.
        collector: waits for nodes and turns bad answers away.
        replayer: distils the path.

    Attributes:
        synthetic: the set, from round ``collect_rounds`` on.
    """

    def __init__(self, request: TrainRequest, learner: Learner, collector: ReplyCollector, replayer: Replayer) -> None:
        super().__init__(request, learner.fresh(), collector)
        self.replayer = replayer
        self.synthetic: SyntheticSet | None = None
        options = replayer.options
        train_config = TrainConfig(
            epochs=options.finetune_epochs,
            learning_rate=options.finetune_learning_rate,
            schedule="constant",
            augmentation=learner.training(1).augmentation,
        )
        self.learner = replace(learner, training=lambda samples: train_config)
        self._path: list[Network] = []

    def state(self) -> State:
        """The path, and the set that was made from it."""
        path = [tensors_of(weights_of(network)) for network in self._path]
        return {"path": path, "synthetic": set_as_state(self.synthetic)}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self._path = [self.learner.with_weights(arrays_of(one)) for one in state["path"]]
        self.synthetic = set_from_state(state["synthetic"])

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """As FedAvg; the first model that is sent begins the path."""
        if not self._path:
            self._path.append(self.learner.with_weights(arrays))
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and finetune where there is a set by then.

        Raises:
            QuorumError: too few models could be used.
            DivergenceError: distilling or finetuning diverged.
        """
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            return arrays, metrics
        if server_round <= self.replayer.options.collect_rounds:
            self._path.append(self.learner.with_weights(arrays))
        if server_round == self.replayer.options.collect_rounds:
            self.synthetic = self.replayer.distil(tuple(self._path))
        if self.synthetic is not None:
            arrays = self.learner.learn(self.synthetic, server_round, start=arrays)
        return arrays, metrics
