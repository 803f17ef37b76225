"""A few networks trained on the real data, perturbed anew for every view: AccDD (Zhang et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.network_sources.episode import network_of, weights_on_cpu
from fedcl_distill.network_sources.perturbation import perturbed
from fedcl_distill.network_sources.pretraining import pretrained_pool
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.training import Recipe


@dataclass(frozen=True)
class PretrainedPool:
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
        augmentation: of their training, drawn anew for every sample; None takes what suits the data.
        least_perturbation, most_perturbation: sizes of the coefficients of both directions, in norms of each filter; 0
            and 0 leave the networks as they are.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    gives_goal: ClassVar[bool] = False
    architecture: Architecture | None = None
    networks: int = 5
    epochs: int = 2
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    augmentation: Augmentation | None = None
    least_perturbation: float = 0.01
    most_perturbation: float = 0.09

    def __post_init__(self) -> None:
        if self.networks < 1 or self.epochs < 0 or self.batch_size < 1 or self.learning_rate <= 0:
            raise SettingsError("a pool needs networks ≥ 1, epochs ≥ 0, batch_size ≥ 1 and learning_rate > 0")
        if not 0 <= self.least_perturbation <= self.most_perturbation:
            raise SettingsError("perturbations need 0 ≤ least ≤ most")

    def open(self, problem: Problem) -> Supply:
        """The pool is trained when the first view is drawn, so that a resumed run, which has it, need not do that.

        Drawing raises DivergenceError if a network's loss stops being finite.
        """
        return _Supply(problem, self)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "pretrained pool",
            "architecture": str(self.architecture or "default"),
            "pool_size": self.networks,
            "pool_epochs": self.epochs,
            "pool_learning_rate": self.learning_rate,
            "pool_momentum": self.momentum,
            "pool_weight_decay": self.weight_decay,
            "pool_batch_size": self.batch_size,
            "pool_augmentation": None if self.augmentation is None else self.augmentation.settings(),
            "perturbation": [self.least_perturbation, self.most_perturbation],
        }


class _Supply(Supply):
    def __init__(self, problem: Problem, source: PretrainedPool) -> None:
        self._problem, self._source = problem, source
        self._architecture = source.architecture or default_architecture(problem.real.sample_shape)
        self._pool: list[Network] = []

    def draw(self, index: int, seed: int) -> Drawn:
        if not self._pool:
            pairs = pretrained_pool(self._problem, self._architecture, self._recipe(), self._source.networks)
            self._pool = [pair.trained for pair in pairs]
        chosen = int(torch.randint(len(self._pool), (), generator=generator_for(seed, "pool member")))
        least, most = self._source.least_perturbation, self._source.most_perturbation
        return Drawn(perturbed(self._pool[chosen], least, most, seed=derive_seed(seed, "perturbation")))

    def state(self) -> dict[str, Any]:
        """All weights: how far a budget in seconds let each network get is not to be repeated."""
        return {"pool": [weights_on_cpu(network) for network in self._pool]}

    def restore(self, state: dict[str, Any]) -> None:
        self._pool = [network_of(weights, self._architecture, self._problem) for weights in state["pool"]]

    def _recipe(self) -> Recipe:
        source = self._source
        return Recipe(
            epochs=source.epochs,
            learning_rate=source.learning_rate,
            momentum=source.momentum,
            weight_decay=source.weight_decay,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=source.augmentation or augmentation_for(self._problem.real),
        )
