"""A pool of networks that learn from the synthetic samples while these are made: FRePo (Zhou et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.sides import SyntheticSide


@dataclass(frozen=True)
class OnlinePool:
    """Each view looks through one network of a pool; then that network takes a step of training on the synthetic set.

    So networks of many ages, and therefore many degrees of training, are looked through, and no expert is needed
    (Zhou et al. 2022). As in the authors' code, first ages are staggered, a network past
    ``steps_at_most`` is replaced by a fresh one instead of being trained, and the training is Adam on ½ squared error
    from labels minus 1/classes, without augmentation.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        networks: in the pool.
        steps_at_most: training steps before a network is replaced.
        learning_rate: of Adam.
        batch_size: synthetic samples a training step, at most.
    """

    gives_goal: ClassVar[bool] = False
    architecture: Architecture | None = None
    networks: int = 10
    steps_at_most: int = 100
    learning_rate: float = 3e-4
    batch_size: int = 1000

    def __post_init__(self) -> None:
        if self.networks < 1 or self.steps_at_most < 0 or self.batch_size < 1 or self.learning_rate <= 0:
            raise SettingsError("a pool needs networks ≥ 1, steps_at_most ≥ 0, batch_size ≥ 1 and learning_rate > 0")

    def open(self, problem: Problem) -> Supply:
        return _PoolSupply(problem, self)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "online pool",
            "architecture": str(self.architecture or "default"),
            "pool_size": self.networks,
            "pool_steps_at_most": self.steps_at_most,
            "network_learning_rate": self.learning_rate,
            "network_batch_size": self.batch_size,
        }


class _Member:
    """A network of the pool with its optimiser and age in training steps."""

    def __init__(self, network: Network, learning_rate: float, age: int) -> None:
        self.network = network.requires_grad_(False)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.age = age

    def train(self, inputs: Tensor, labels: Tensor) -> None:
        """One step on ½ squared error against ``labels``, float32 (n, classes); its mean over samples."""
        self.network.requires_grad_(True)
        self.optimiser.zero_grad(set_to_none=True)
        for part, wanted in chunked(inputs, labels):
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


class _PoolSupply(Supply):
    def __init__(self, problem: Problem, settings: OnlinePool) -> None:
        self._problem, self._settings = problem, settings
        self._architecture = settings.architecture or default_architecture(problem.real.sample_shape)
        stagger = settings.steps_at_most // settings.networks
        self._members = [
            self._member(derive_seed(problem.seed, "network", place), age=place * stagger)
            for place in range(settings.networks)
        ]

    def draw(self, index: int, seed: int) -> Drawn:
        return Drawn(self._members[self._place(seed)].network)

    def learn(self, index: int, seed: int, synthetic: SyntheticSide) -> None:
        place, real = self._place(seed), self._problem.real
        if self._members[place].age > self._settings.steps_at_most:
            self._members[place] = self._member(derive_seed(seed, "network"), age=0)
            return
        chosen = torch.randperm(len(synthetic.inputs), generator=generator_for(seed, "network batch"))
        chosen = chosen[: self._settings.batch_size].to(synthetic.inputs.device)
        labels = synthetic.probabilities(real.num_classes) - 1 / real.num_classes
        self._members[place].train(synthetic.inputs[chosen], labels[chosen])

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
