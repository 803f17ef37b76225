"""Networks that train on the synthetic samples while real queries watch: CAFE's dynamic loops (Wang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.network_sources.episode import Episode
from fedcl_distill.network_sources.fresh import FreshRandom
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed
from fedcl_distill.sides import RealSide, SyntheticSide
from fedcl_distill.training import Recipe, fit


@dataclass(frozen=True)
class WatchedTraining:
    """One network for many views; between them it trains on the synthetic samples for as long as it takes to change.

    After every view the accuracy on real queries is taken. Once it moved by less than ``settled`` over ``window``
    views, a fresh network takes over (Wang et al. 2022: the outer loop). Otherwise the network trains on
    the synthetic samples, pass by pass, until its accuracy moved by more than ``changed`` over the last ``window``
    passes (the inner loop). The paper bounds neither loop; here ``most_views`` and ``most_epochs`` do, for a network
    that has learned all it can would train for ever.

    Queries cost more than everything else on a CPU: 128 of each class, at least 10 times a view. The paper's numbers
    are the defaults; with fewer queries the accuracy is noisier, so that loops end by chance sooner.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        learning_rate, batch_size: of plain SGD on the synthetic samples.
        augmentation: drawn for each sample of a batch while training.
        queries_per_class: real samples a class that an accuracy is measured on; drawn anew each time.
        window: accuracies that are compared.
        settled, changed: see above; accuracies are fractions.
        most_views: of a network.
        most_epochs: passes over the synthetic samples between two views.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    gives_goal: ClassVar[bool] = False
    architecture: Architecture | None = None
    learning_rate: float = 0.01
    batch_size: int = 256
    augmentation: Augmentation | None = None
    queries_per_class: int = 128
    window: int = 10
    settled: float = 0.04
    changed: float = 0.03
    most_views: int = 50
    most_epochs: int = 50

    def __post_init__(self) -> None:
        if min(self.batch_size, self.queries_per_class, self.most_views, self.most_epochs) < 1 or self.window < 2:
            raise SettingsError("watched training needs a batch, queries, views and epochs ≥ 1 and a window ≥ 2")
        if self.learning_rate <= 0 or min(self.settled, self.changed) < 0:
            raise SettingsError("watched training needs a positive learning rate and bounds that are not negative")

    def open(self, problem: Problem) -> Supply:
        return _WatchedSupply(self, problem)

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "watched training",
            "architecture": str(self.architecture or "default"),
            "network_learning_rate": self.learning_rate,
            "network_batch_size": self.batch_size,
            "network_augmentation": None if self.augmentation is None else self.augmentation.settings(),
            "queries_per_class": self.queries_per_class,
            "watched_window": self.window,
            "watched_settled": self.settled,
            "watched_changed": self.changed,
            "watched_most_views": self.most_views,
            "watched_most_epochs": self.most_epochs,
        }


class _WatchedSupply(Supply):
    """The network in use, and its accuracy after each of its views."""

    def __init__(self, source: WatchedTraining, problem: Problem) -> None:
        self._source = source
        self._real = RealSide(problem.real, problem.device)
        self._recipe = Recipe(
            epochs=1,
            learning_rate=source.learning_rate,
            momentum=0.0,
            weight_decay=0.0,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=source.augmentation or NoAugmentation(),
        )
        self._episode = Episode(FreshRandom(source.architecture).open(problem))
        self._accuracies: list[float] = []

    def draw(self, index: int, seed: int) -> Drawn:
        return Drawn(self._episode.network(index, seed))

    def learn(self, index: int, seed: int, synthetic: SyntheticSide) -> None:
        network, source = self._episode.network(index, seed), self._source
        self._accuracies.append(self._accuracy(network, derive_seed(seed, "queries")))
        spread = spread_of_last(self._accuracies, source.window)
        if len(self._accuracies) >= source.most_views or (spread is not None and spread < source.settled):
            self._episode.end()
            self._accuracies = []
        else:
            self._train(network, seed, synthetic)

    def state(self) -> dict[str, Any]:
        return {"episode": self._episode.state(), "accuracies": list(self._accuracies)}

    def restore(self, state: dict[str, Any]) -> None:
        self._episode.restore(state["episode"])
        self._accuracies = list(state["accuracies"])

    def _train(self, network: Network, seed: int, synthetic: SyntheticSide) -> None:
        source, accuracies = self._source, list[float]()
        network.requires_grad_(True)
        for epoch in range(source.most_epochs):
            one = derive_seed(seed, "inner", epoch)
            fit(network, synthetic.inputs, synthetic.labels, self._recipe, seed=one)
            accuracies.append(self._accuracy(network, derive_seed(one, "queries")))
            spread = spread_of_last(accuracies, source.window)
            if spread is not None and spread > source.changed:
                break
        network.requires_grad_(False)
        network.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _accuracy(self, network: Network, seed: int) -> float:
        """Mean over classes of the fraction of queries that the network has right."""
        inputs, labels = self._real.draw(self._source.queries_per_class, seed)
        predicted = torch.cat([network(part).argmax(dim=1) for (part,) in chunked(inputs)])
        right = torch.bincount(labels, weights=(predicted == labels).double())
        counts = torch.bincount(labels)
        return float((right[counts > 0] / counts[counts > 0]).mean())


def spread_of_last(values: Sequence[float] | Tensor, window: int) -> float | None:
    """Largest minus smallest of the last ``window`` values; None where there are fewer."""
    last = list(values)[-window:]
    return max(last) - min(last) if len(last) == window else None
