"""Pools of networks that are trained before or while samples are distilled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, Transform, augmentation_for
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import DrawnNetwork, NetworkSampler, NetworkSource, perturbed
from fedcl_distill.networks import (
    Architecture,
    ArchitectureLike,
    Learning,
    Network,
    architecture_for,
    as_architecture,
)
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.optimisers import Optimiser, check_optimiser
from fedcl_distill.registry import Plain
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Momentum, Natural, NonNegative, Positive, settings
from fedcl_distill.training import TrainConfig, fit, train_config_for


@dataclass(frozen=True)
class Pretrained:
    """The same network before and after training on the real data; both constant."""

    init: Network
    trained: Network


def pretrained_pair(
    problem: SetupContext,
    architecture: Architecture,
    train_config: TrainConfig,
    index: int,
    keep_going: Callable[[], bool] | None = None,
) -> Pretrained:
    """Network number ``index`` of the problem's pool, trained by ``train_config``.

    Where ``keep_going``, or without it the problem, says that there is no more time, training ends after the step under
    way, so that there is one step at least.

    Raises:
        DivergenceError: the loss stopped being finite.
    """
    real, seed = problem.real, derive_seed(problem.seed, "pretrained", index)
    initial = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=problem.device)
    trained = copy.deepcopy(initial)
    fit(trained, real.inputs(), real.labels, train_config, seed=seed, keep_going=keep_going or problem.has_time)
    trained.zero_grad(set_to_none=True)
    return Pretrained(initial.requires_grad_(False), trained.requires_grad_(False))


def pretrained_pool(
    problem: SetupContext, architecture: Architecture, train_config: TrainConfig, count: int
) -> list[Pretrained]:
    """Up to ``count`` pairs: the first in any case, each further one only while there is time.

    Raises:
        DivergenceError: the loss of one stopped being finite.
    """
    keep_going = problem.counting(count * train_config.steps(len(problem.real)), "networks")
    pool = [pretrained_pair(problem, architecture, train_config, 0, keep_going)]
    while len(pool) < count and problem.has_time():
        pool.append(pretrained_pair(problem, architecture, train_config, len(pool), keep_going))
    return pool


class Episode:
    """The network now in use, a copy of what ``start`` drew for its first view, and how many views it has served."""

    def __init__(self, start: NetworkSampler) -> None:
        self._start = start
        self._network: Network | None = None
        self.served = 0

    def network(self, index: int, seed: int) -> Network:
        """The network of view number ``index``; a new one if none is in use."""
        if self._network is None:
            self._network = copy.deepcopy(self._start.draw(index, seed).network).requires_grad_(False)
        return self._network

    def end(self) -> None:
        """Let the next view have a new network."""
        self._network, self.served = None, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        weights = None if self._network is None else weights_on_cpu(self._network)
        return {"served": self.served, "weights": weights, "start": self._start.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._start.restore(state["start"])
        self.end()
        if state["weights"] is not None:
            self.network(0, 0).load_state_dict(state["weights"])
        self.served = int(state["served"])


def network_of(weights: dict[str, Tensor], architecture: Architecture, problem: SetupContext) -> Network:
    """The constant network that :func:`weights_on_cpu` took ``weights`` from."""
    real = problem.real
    network = architecture.build(real.sample_shape, real.num_classes, seed=0, device=problem.device)
    network.load_state_dict(weights)
    return network.requires_grad_(False)


def weights_on_cpu(network: Network) -> dict[str, Tensor]:
    """All weights by name, copied."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


@settings
class PretrainedPool(NetworkSource):
    """Each view draws one of a few networks in an early stage of training, and moves it a little in a random direction.

    Few networks, made many by perturbation, replace the many random ones that gradient matching starts from (Zhang et
    al. 2023, Accelerating dataset distillation via model augmentation). Training is SGD at a constant rate
    with ordinary batches; the authors' also mixes them. Where the budget ends it early, there are fewer networks; one
    has been trained for a step at least.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        networks: in the pool.
        epochs: of their training.
        learning_rate, momentum, weight_decay, batch_size: of their training.
        optimiser: in place of that SGD: any callable that takes parameters, or the name of one.
        augmentation: of their training, drawn anew for every sample; None takes what suits the data.
        min_perturbation, max_perturbation: sizes of the coefficients of both directions, in norms of each filter; 0
            and 0 leave the networks as they are.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    architecture: ArchitectureLike | None = None
    networks: Count = 5
    epochs: Natural = 2
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 64
    augmentation: Augmentation | Transform | Plain | None = None
    min_perturbation: NonNegative = 0.01
    max_perturbation: NonNegative = 0.09
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        check_optimiser(self, "learning_rate", "momentum", "weight_decay")
        if self.min_perturbation > self.max_perturbation:
            raise SettingsError(
                f"PretrainedPool: min_perturbation must be at most max_perturbation, got {self.min_perturbation} and "
                f"{self.max_perturbation}"
            )
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """The pool is trained when the first view is drawn, so that a resumed run, which has it, need not do that.

        Drawing raises DivergenceError if a network's loss stops being finite.
        """
        return _Sampler(problem, self)


class _Sampler(NetworkSampler):
    def __init__(self, problem: SetupContext, source: PretrainedPool) -> None:
        self._problem, self._source = problem, source
        self._architecture = architecture_for(source.architecture, problem.real.sample_shape)
        self._pool: list[Network] = []

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        if not self._pool:
            pairs = pretrained_pool(self._problem, self._architecture, self._train_config(), self._source.networks)
            self._pool = [pair.trained for pair in pairs]
        chosen = int(torch.randint(len(self._pool), (), generator=generator_for(seed, "pool member")))
        least, most = self._source.min_perturbation, self._source.max_perturbation
        return DrawnNetwork(perturbed(self._pool[chosen], least, most, seed=derive_seed(seed, "perturbation")))

    def state(self) -> dict[str, Any]:
        """All weights: how far a budget in seconds let each network get is not to be repeated."""
        return {"pool": [weights_on_cpu(network) for network in self._pool]}

    def restore(self, state: dict[str, Any]) -> None:
        self._pool = [network_of(weights, self._architecture, self._problem) for weights in state["pool"]]

    def _train_config(self) -> TrainConfig:
        source = self._source
        return TrainConfig.of(
            source.optimiser,
            epochs=source.epochs,
            learning_rate=source.learning_rate,
            momentum=source.momentum,
            weight_decay=source.weight_decay,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=augmentation_for(self._problem.real, source.augmentation),
        )


@settings
class Interpolated(NetworkSource):
    """Each view's network lies on the line from a network's initial weights to those after training on the real data.

    Where on the line is uniformly random, and which of the pretrained networks as well; the goal of a view is the
    trained end (Wang et al. 2025; interpolated as in their code). A budget in seconds trains fewer
    networks, and ends the training of the first one early if it must.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        networks: pretrained before the first step.
        train_config: how; None takes :func:`~fedcl_distill.training.train_config_for`.

    Raises:
        SettingsError: on construction, if there is no network.
    """

    gives_target: ClassVar[bool] = True
    architecture: ArchitectureLike | None = None
    networks: Count = 20
    train_config: TrainConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """The first draw pretrains the networks, and raises DivergenceError where a loss stopped being finite."""
        return _InterpolatedSampler(self, problem)


class _InterpolatedSampler(NetworkSampler):
    def __init__(self, source: Interpolated, problem: SetupContext) -> None:
        self._source, self._problem = source, problem
        self._architecture = architecture_for(source.architecture, problem.real.sample_shape)
        self._pool: list[tuple[Network, Network]] = []

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        if not self._pool:  # not earlier, for a resumed run need not train them again
            self._pool = self._pretrained()
        generator = generator_for(seed, "interpolation")
        initial, trained = self._pool[int(torch.randint(len(self._pool), (), generator=generator))]
        return DrawnNetwork(between(initial, trained, float(torch.rand((), generator=generator))), trained)

    def state(self) -> dict[str, Any]:
        """All weights: how far a budget in seconds let each network get is not to be repeated."""
        return {"pool": [[weights_on_cpu(network) for network in pair] for pair in self._pool]}

    def restore(self, state: dict[str, Any]) -> None:
        pairs = [[network_of(one, self._architecture, self._problem) for one in pair] for pair in state["pool"]]
        self._pool = [(initial, trained) for initial, trained in pairs]

    def _pretrained(self) -> list[tuple[Network, Network]]:
        train_config = self._source.train_config or train_config_for(self._problem.real)
        pool = pretrained_pool(self._problem, self._architecture, train_config, self._source.networks)
        return [(pair.init, pair.trained) for pair in pool]


@torch.no_grad()
def between(initial: Network, trained: Network, fraction: float) -> Network:
    """A network of weights that are ``fraction`` of the way from ``initial`` to ``trained``; both stay as they are."""
    network = copy.deepcopy(initial)
    for weight, end in zip(network.parameters(), trained.parameters(), strict=True):
        weight.lerp_(end, fraction)
    return network


@settings
class OnlinePool(NetworkSource):
    """Each view looks through one network of a pool; then that network takes a step of training on the synthetic set.

    So networks of many ages, and therefore many degrees of training, are looked through, and no expert is needed
    (Zhou et al. 2022). As in the authors' code, first ages are staggered, a network past
    ``max_steps`` is replaced by a fresh one instead of being trained, and the training is Adam on ½ squared error
    from labels minus 1/classes, without augmentation.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        networks: in the pool.
        max_steps: training steps before a network is replaced.
        learning_rate: of Adam.
        batch_size: synthetic samples a training step, at most.
    """

    architecture: ArchitectureLike | None = None
    networks: Count = 10
    max_steps: Natural = 100
    learning_rate: Positive = 3e-4
    batch_size: Count = 1000

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _PoolSampler(problem, self)


class _Member:
    """A network of the pool with its optimiser and age in training steps."""

    def __init__(self, network: Network, learning_rate: float, age: int) -> None:
        self.network = network.requires_grad_(False)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.age = age

    def train(self, inputs: Tensor, labels: Tensor, seed: int) -> None:
        """One step on ½ squared error against ``labels``, float32 (n, classes); its mean over samples."""
        self.network.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        learning = Learning(self.network)
        with learning.step(len(inputs), seed):
            for part, wanted in micro_batches(inputs, labels, whole=learning.whole):
                loss = 0.5 * (self.network(part) - wanted).square().sum() / len(inputs)
                loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.network.requires_grad_(False)
        self.age += 1

    def state(self) -> dict[str, Any]:
        return {
            "age": self.age,
            "weights": {name: one.clone() for name, one in self.network.state_dict().items()},
            "moments": [
                {name: value.clone() for name, value in self.optimiser.state[one].items()}
                for one in self.network.parameters()
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.age = state["age"]
        self.network.load_state_dict(state["weights"])
        for one, moments in zip(self.network.parameters(), state["moments"], strict=True):
            # Adam counts its steps on the CPU, wherever the weights are.
            placed = {
                name: value.clone().to("cpu" if name == "step" else one.device) for name, value in moments.items()
            }
            self.optimiser.state[one] = placed


class _PoolSampler(NetworkSampler):
    def __init__(self, problem: SetupContext, settings: OnlinePool) -> None:
        self._problem, self._settings = problem, settings
        self._architecture = architecture_for(settings.architecture, problem.real.sample_shape)
        stagger = settings.max_steps // settings.networks
        self._members = [
            self._member(derive_seed(problem.seed, "network", place), age=place * stagger)
            for place in range(settings.networks)
        ]

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(self._members[self._place(seed)].network)

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        place, real = self._place(seed), self._problem.real
        if self._members[place].age > self._settings.max_steps:
            self._members[place] = self._member(derive_seed(seed, "network"), age=0)
            return
        chosen = torch.randperm(len(synthetic.inputs), generator=generator_for(seed, "network batch"))
        chosen = chosen[: self._settings.batch_size].to(synthetic.inputs.device)
        labels = synthetic.probabilities(real.num_classes) - 1 / real.num_classes
        self._members[place].train(synthetic.inputs[chosen], labels[chosen], derive_seed(seed, "network"))

    def state(self) -> dict[str, Any]:
        return {"members": [member.state() for member in self._members]}

    def restore(self, state: dict[str, Any]) -> None:
        for member, saved in zip(self._members, state["members"], strict=True):
            member.restore(saved)

    def _place(self, seed: int) -> int:
        """Which member the view named by ``seed`` looks through."""
        return int(torch.randint(self._settings.networks, (), generator=generator_for(seed, "pool member")))

    def _member(self, seed: int, age: int) -> _Member:
        real = self._problem.real
        network = self._architecture.build(real.sample_shape, real.num_classes, seed=seed, device=self._problem.device)
        return _Member(network, self._settings.learning_rate, age)
