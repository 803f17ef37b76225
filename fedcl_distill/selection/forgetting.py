"""Forgetting events as a core-set criterion (Toneva et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, default_architecture
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.training import Recipe, fit, predict

_WIDTH = 32
_NEVER_LOOKED_AT = -1.0


@dataclass(frozen=True)
class Forgetting:
    """Prefers samples that a network in training forgets most often.

    A network trains on candidates of the real data; after every pass it is seen which of them it has right. A sample is
    forgotten when it was right after one pass and is wrong after the next; one that is never right counts as forgotten
    most (Toneva et al. 2019, who look at each sample whenever it is in a batch). Ties are broken at random.

    Attributes:
        epochs: passes over the candidates.
        candidates_per_class: random samples of each class that are looked at, so that a large data set takes minutes on
            a CPU; None looks at all. Others are chosen only where candidates run out.
        architecture: of the network; None takes a ConvNet for images and an MLP for features, of width 32.
        learning_rate, batch_size: of SGD with momentum 0.9 while training.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    name: ClassVar[str] = "forgetting"
    epochs: int = 10
    candidates_per_class: int | None = 500
    architecture: Architecture | None = None
    learning_rate: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 2:
            raise SettingsError(f"forgetting is seen between passes; it needs at least 2 epochs, got {self.epochs}")
        if self.candidates_per_class is not None and self.candidates_per_class < 1:
            raise SettingsError(f"forgetting needs a candidate of each class, got {self.candidates_per_class}")

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, 1): how often each sample was forgotten; -1 where it was not looked at."""
        candidates = self._candidates(real, seed)
        scores = torch.full((len(real), 1), _NEVER_LOOKED_AT)
        scores[candidates, 0] = forgetting_scores(self._right_after_each_pass(real.subset(candidates), seed))
        return scores

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        shuffled = torch.randperm(len(embeddings), generator=generator)
        order = embeddings[shuffled, 0].argsort(descending=True, stable=True)
        return shuffled[order[:count]]

    def _candidates(self, real: LabelledData, seed: int) -> Tensor:
        """int64 (candidates,): positions in ``real``."""
        if self.candidates_per_class is None:
            return torch.arange(len(real))
        picks = []
        for label in range(real.num_classes):
            rows = real.indices_of(label)
            order = torch.randperm(len(rows), generator=generator_for(seed, "candidates", label))
            picks.append(rows[order[: self.candidates_per_class]])
        return torch.cat(picks)

    def _right_after_each_pass(self, data: LabelledData, seed: int) -> Tensor:
        """bool (epochs, n)."""
        architecture = self.architecture or default_architecture(data.sample_shape, _WIDTH)
        network = architecture.build(data.sample_shape, data.num_classes, seed=derive_seed(seed, "weights"))
        recipe = Recipe(1, learning_rate=self.learning_rate, batch_size=self.batch_size, schedule="constant")
        inputs, right = data.inputs(), []
        for epoch in range(self.epochs):
            fit(network, inputs, data.labels, recipe, seed=derive_seed(seed, "pass", epoch))
            right.append(predict(network, data) == data.labels)
        return torch.stack(right)


def forgetting_scores(right: Tensor) -> Tensor:
    """float32 (n,): how often each sample went from right to wrong; the number of passes for one that was never right.

    Args:
        right: bool (passes, n): whether each sample was classified correctly after each pass.
    """
    events = (right[:-1] & ~right[1:]).sum(dim=0)
    return torch.where(right.any(dim=0), events, len(right)).float()
