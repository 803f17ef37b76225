"""Networks that learn from the synthetic samples while these are made (Zhao et al. 2021, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, NetworkSource, Supply
from fedcl_distill.network_sources.episode import Episode
from fedcl_distill.network_sources.fresh import FreshRandom
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed
from fedcl_distill.sides import SyntheticSide
from fedcl_distill.training import Recipe, fit

_PUBLISHED_PASSES = ((1, 1), (10, 50), (20, 25), (30, 20), (40, 15), (50, 10))


def loops_for(per_class: int) -> tuple[int, int]:
    """Views a network, and passes over the synthetic samples between two of them, for so many samples a class.

    The authors give (1, 1), (10, 50), (20, 25), (30, 20), (40, 15) and (50, 10) for 1, 10, 20, 30, 40 and 50 samples:
    as many views as samples. So it is here for any number up to 50, with passes on the straight lines between the
    authors'; more samples are treated like 50.
    """
    per_class = max(1, min(per_class, _PUBLISHED_PASSES[-1][0]))
    for (low, at_low), (high, at_high) in pairwise(_PUBLISHED_PASSES):
        if per_class <= high:
            return per_class, round(at_low + (at_high - at_low) * (per_class - low) / (high - low))
    raise AssertionError("every number up to the last published one lies between two of them")


@dataclass(frozen=True)
class TrainedOnSynthetic:
    """A network serves some views, and between two of them it is trained on the synthetic samples as they are by then.

    Momentum starts from rest after every view, so that weights are all there is to know; the published setting has
    none.

    Attributes:
        start: gives a new network for the first view, and whenever the last one has served its views.
        views_per_network: views until a new one (the authors' outer loop); None takes :func:`loops_for` of the mean
            number of synthetic samples a class.
        passes_between: over the synthetic samples, between two views (their inner loop); None likewise.
        learning_rate, momentum, weight_decay, batch_size: of that training.
        augmentation: of that training, drawn anew for every sample; None takes what suits the data.

    Raises:
        SettingsError: on construction, if there are less than one view or sample a batch, or negative passes.
    """

    gives_goal: ClassVar[bool] = False
    start: NetworkSource = field(default_factory=FreshRandom)
    views_per_network: int | None = None
    passes_between: int | None = None
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 256
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.views_per_network is not None and self.views_per_network < 1:
            raise SettingsError(f"a network serves at least one view, got views_per_network={self.views_per_network}")
        if self.passes_between is not None and self.passes_between < 0:
            raise SettingsError(f"passes_between cannot be negative, got {self.passes_between}")
        if self.batch_size < 1 or self.learning_rate <= 0:
            raise SettingsError("networks need batch_size ≥ 1 and learning_rate > 0")

    def open(self, problem: Problem) -> Supply:
        return _Supply(problem, self)

    def settings(self) -> dict[str, Any]:
        start = self.start.settings()
        return {
            **start,
            "networks": f"trained on synthetic, from {start['networks']}",
            "views_per_network": self.views_per_network,
            "passes_between": self.passes_between,
            "network_learning_rate": self.learning_rate,
            "network_momentum": self.momentum,
            "network_weight_decay": self.weight_decay,
            "network_batch_size": self.batch_size,
            "network_augmentation": None if self.augmentation is None else self.augmentation.settings(),
        }

    def loops(self, synthetic: SyntheticSide) -> tuple[int, int]:
        """Views a network and passes between two of them, for these samples."""
        present = int((torch.bincount(synthetic.classes) > 0).sum())
        views, passes = loops_for(round(len(synthetic.classes) / present))
        return self.views_per_network or views, passes if self.passes_between is None else self.passes_between


class _Supply(Supply):
    def __init__(self, problem: Problem, source: TrainedOnSynthetic) -> None:
        self._source = source
        self._episode = Episode(source.start.open(problem))
        self._augmentation = source.augmentation or augmentation_for(problem.real)

    def draw(self, index: int, seed: int) -> Drawn:
        return Drawn(self._episode.network(index, seed))

    def learn(self, index: int, seed: int, synthetic: SyntheticSide) -> None:
        views, passes = self._source.loops(synthetic)
        self._episode.served += 1
        if self._episode.served >= views:
            self._episode.end()
            return
        network = self._episode.network(index, seed).requires_grad_(True)
        recipe = self._recipe(passes)
        fit(network, synthetic.inputs, synthetic.labels, recipe, seed=derive_seed(seed, "network training"))
        network.zero_grad(set_to_none=True)
        network.requires_grad_(False)

    def _recipe(self, passes: int) -> Recipe:
        return Recipe(
            epochs=passes,
            learning_rate=self._source.learning_rate,
            momentum=self._source.momentum,
            weight_decay=self._source.weight_decay,
            batch_size=self._source.batch_size,
            schedule="constant",
            augmentation=self._augmentation,
        )

    def state(self) -> dict[str, Any]:
        return self._episode.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._episode.restore(state)
