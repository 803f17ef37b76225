"""Networks that learn from the real data while synthetic samples are made: IDC (Kim et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.augmentation.cutmix import cutmix
from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, NetworkSource, Supply
from fedcl_distill.network_sources.episode import Episode
from fedcl_distill.network_sources.fresh import FreshRandom
from fedcl_distill.networks import Network
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.sides import SyntheticSide


@dataclass(frozen=True)
class TrainedOnReal:
    """A network serves some views, and between two of them it is trained on a few batches of the real data.

    Gradients of a network trained on few synthetic samples vanish soon; on real data they keep telling something. The
    published setting is the default one; for CIFAR it takes 2,000 samples between two views.

    Attributes:
        start: gives a new network for the first view, and whenever the last one has served its views.
        views_per_network: views until a new one.
        samples_between: real samples between two views, in random order without replacement, in whole batches; all of
            them where there are fewer. 0 leaves the network as it is.
        learning_rate, momentum, weight_decay, batch_size: of that training; momentum lasts as long as the network.
        cutmix_probability: of mixing a batch, see :func:`~fedcl_distill.augmentation.cutmix.cutmix`; feature vectors
            are never mixed.
        augmentation: before mixing, drawn anew for every sample; None takes what suits the data. The authors leave
            out cutout where batches are mixed.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    gives_goal: ClassVar[bool] = False
    start: NetworkSource = field(default_factory=FreshRandom)
    views_per_network: int = 100
    samples_between: int = 500
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    cutmix_probability: float = 0.5
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.views_per_network < 1 or self.samples_between < 0:
            raise SettingsError("a network serves at least one view, and samples_between is not negative")
        if self.batch_size < 1 or self.learning_rate <= 0 or not 0 <= self.cutmix_probability <= 1:
            raise SettingsError("networks need batch_size ≥ 1, learning_rate > 0 and a cutmix_probability in [0, 1]")

    def open(self, problem: Problem) -> Supply:
        return _Supply(problem, self)

    def settings(self) -> dict[str, Any]:
        start = self.start.settings()
        return {
            **start,
            "networks": f"trained on real, from {start['networks']}",
            "views_per_network": self.views_per_network,
            "samples_between": self.samples_between,
            "network_learning_rate": self.learning_rate,
            "network_momentum": self.momentum,
            "network_weight_decay": self.weight_decay,
            "network_batch_size": self.batch_size,
            "network_cutmix": self.cutmix_probability,
            "network_augmentation": None if self.augmentation is None else self.augmentation.settings(),
        }


class _Supply(Supply):
    def __init__(self, problem: Problem, source: TrainedOnReal) -> None:
        self._real, self._device, self._source = problem.real, problem.device, source
        self._episode = Episode(source.start.open(problem))
        self._augmentation = source.augmentation or augmentation_for(problem.real)
        self._momentum: list[Tensor] = []

    def draw(self, index: int, seed: int) -> Drawn:
        return Drawn(self._episode.network(index, seed))

    def learn(self, index: int, seed: int, synthetic: SyntheticSide) -> None:
        self._episode.served += 1
        if self._episode.served >= self._source.views_per_network:
            self._episode.end()
            self._momentum = []
            return
        network = self._episode.network(index, seed).requires_grad_(True)
        optimiser = self._optimiser(network)
        for number, rows in enumerate(self._batches(seed)):
            self._step(network, optimiser, rows, derive_seed(seed, "network batch", number))
        self._momentum = [
            optimiser.state[one]["momentum_buffer"] for one in network.parameters() if optimiser.state[one]
        ]
        network.zero_grad(set_to_none=True)
        network.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {**self._episode.state(), "momentum": [buffer.cpu().clone() for buffer in self._momentum]}

    def restore(self, state: dict[str, Any]) -> None:
        self._episode.restore(state)
        self._momentum = [buffer.to(self._device) for buffer in state["momentum"]]

    def _optimiser(self, network: Network) -> torch.optim.Optimizer:
        source = self._source
        optimiser = torch.optim.SGD(
            network.parameters(), lr=source.learning_rate, momentum=source.momentum, weight_decay=source.weight_decay
        )
        for one, buffer in zip(network.parameters(), self._momentum, strict=False):  # none before the first training
            optimiser.state[one]["momentum_buffer"] = buffer
        return optimiser

    def _batches(self, seed: int) -> list[Tensor]:
        """int64 (size,) rows of each batch."""
        size, wanted = self._source.batch_size, self._source.samples_between
        count = min(-(-wanted // size) * size, len(self._real))
        rows = torch.randperm(len(self._real), generator=generator_for(seed, "network rows"))[:count]
        return [batch for batch in torch.split(rows, size) if len(batch)]

    def _step(self, network: Network, optimiser: torch.optim.Optimizer, rows: Tensor, seed: int) -> None:
        inputs, labels = self._samples(rows, seed)
        optimiser.zero_grad(set_to_none=True)
        for part, wanted in chunked(inputs, labels):
            loss = F.cross_entropy(network(part), wanted, reduction="sum") / len(rows)
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def _samples(self, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Augmented and perhaps mixed inputs, and float (n, classes) probabilities."""
        generator = generator_for(seed, "augmentation")
        draw = self._augmentation.draw(len(rows), self._real.sample_shape, generator)
        inputs = draw(self._real.inputs(rows).to(self._device), torch.arange(len(rows)))
        labels = F.one_hot(self._real.labels[rows], self._real.num_classes).to(self._device, inputs.dtype)
        if inputs.ndim != 4 or float(torch.rand((), generator=generator)) >= self._source.cutmix_probability:
            return inputs, labels
        return cutmix(inputs, labels, seed=seed)
