"""Networks that are trained between views, on either side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import field
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation, Transform, augmentation_for, cutmix
from fedcl_distill.context import RealSampler, SetupContext, SyntheticBatch
from fedcl_distill.network_sources.base import DrawnNetwork, FreshRandom, NetworkSampler, NetworkSource
from fedcl_distill.network_sources.pools import Episode
from fedcl_distill.networks import ArchitectureLike, Learning, Network, as_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.optimisers import SGD, Optimiser, build_optimiser, check_optimiser
from fedcl_distill.registry import Plain
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, NonNegative, Positive, Range, settings
from fedcl_distill.training import TrainConfig, fit


@settings
class TrainedOnReal(NetworkSource):
    """A network serves some views, and between two of them it is trained on a few batches of the real data.

    Gradients of a network trained on few synthetic samples vanish soon; on real data they keep telling something. The
    published setting is the default one; for CIFAR it takes 2,000 samples between two views.

    Attributes:
        start: gives a new network for the first view, and whenever the last one has served its views.
        views_per_network: views until a new one.
        samples_between: real samples between two views, in random order without replacement, in whole batches; all of
            them where there are fewer. 0 leaves the network as it is.
        learning_rate, momentum, weight_decay, batch_size: of that training; momentum lasts as long as the network.
        optimiser: in place of that SGD: any callable that takes parameters, or the name of one.
        cutmix_probability: of mixing a batch, see :func:`~fedcl_distill.augmentation.cutmix`; feature vectors
            are never mixed.
        augmentation: before mixing, drawn anew for every sample; None takes what suits the data. The authors leave
            out cutout where batches are mixed.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    start: NetworkSource = field(default_factory=FreshRandom)
    views_per_network: Count = 100
    samples_between: Natural = 500
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 64
    cutmix_probability: Fraction = 0.5
    augmentation: Augmentation | Transform | Plain | None = None
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        check_optimiser(self, "learning_rate", "momentum", "weight_decay")

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _Sampler(problem, self)


class _Sampler(NetworkSampler):
    def __init__(self, problem: SetupContext, source: TrainedOnReal) -> None:
        self._real, self._device, self._source = problem.real, problem.device, source
        self._episode = Episode(source.start.prepare(problem))
        self._augmentation = augmentation_for(problem.real, source.augmentation)
        self._moments: dict[str, Any] | None = None  # of the optimiser; they last as long as the network

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(self._episode.network(index, seed))

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        self._episode.served += 1
        if self._episode.served >= self._source.views_per_network:
            self._episode.end()
            self._moments = None
            return
        network = self._episode.network(index, seed).requires_grad_(True)
        optimiser, learning = self._optimiser(network), Learning(network)
        for number, rows in enumerate(self._batches(seed)):
            of_batch = derive_seed(seed, "network batch", number)
            with learning.step(len(rows), derive_seed(of_batch, "network")):
                self._step(network, optimiser, rows, of_batch, whole=learning.whole)
        self._moments = optimiser.state_dict()
        network.zero_grad(set_to_none=True)
        network.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {**self._episode.state(), "optimiser": copy.deepcopy(self._moments)}

    def restore(self, state: dict[str, Any]) -> None:
        self._episode.restore(state)
        self._moments = state["optimiser"]

    def _optimiser(self, network: Network) -> torch.optim.Optimizer:
        source = self._source
        sgd = SGD(source.learning_rate, source.momentum, source.weight_decay)
        optimiser = build_optimiser(source.optimiser or sgd, network.parameters())
        if self._moments is not None:
            optimiser.load_state_dict(self._moments)
        return optimiser

    def _batches(self, seed: int) -> list[Tensor]:
        """int64 (size,) rows of each batch."""
        size, wanted = self._source.batch_size, self._source.samples_between
        count = min(-(-wanted // size) * size, len(self._real))
        rows = torch.randperm(len(self._real), generator=generator_for(seed, "network rows"))[:count]
        return [batch for batch in torch.split(rows, size) if len(batch)]

    def _step(
        self, network: Network, optimiser: torch.optim.Optimizer, rows: Tensor, seed: int, *, whole: bool
    ) -> None:
        inputs, labels = self._samples(rows, seed)
        optimiser.zero_grad(set_to_none=True)
        for part, wanted in micro_batches(inputs, labels, whole=whole):
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


@settings
class TrainedOnSynthetic(NetworkSource):
    """A network serves some views, and between two of them it is trained on the synthetic samples as they are by then.

    Momentum starts from rest after every view, so that weights are all there is to know; the published setting has
    none.

    Attributes:
        start: gives a new network for the first view, and whenever the last one has served its views.
        views_per_network: views until a new one (the authors' outer loop); None takes :func:`loops_for` of the mean
            number of synthetic samples a class.
        passes_between: over the synthetic samples, between two views (their inner loop); None likewise.
        learning_rate, momentum, weight_decay, batch_size: of that training.
        optimiser: in place of that SGD: any callable that takes parameters, or the name of one.
        augmentation: of that training, drawn anew for every sample; None takes what suits the data.

    Raises:
        SettingsError: on construction, if there are less than one view or sample a batch, or negative passes.
    """

    start: NetworkSource = field(default_factory=FreshRandom)
    views_per_network: Count | None = None
    passes_between: Natural | None = None
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.0
    weight_decay: NonNegative = 0.0
    batch_size: Count = 256
    augmentation: Augmentation | Transform | Plain | None = None
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        check_optimiser(self, "learning_rate", "momentum", "weight_decay")

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _TrainedOnSyntheticSampler(problem, self)

    def loops(self, synthetic: SyntheticBatch) -> tuple[int, int]:
        """Views a network and passes between two of them, for these samples."""
        present = int((torch.bincount(synthetic.classes) > 0).sum())
        views, passes = loops_for(round(len(synthetic.classes) / present))
        return self.views_per_network or views, passes if self.passes_between is None else self.passes_between


class _TrainedOnSyntheticSampler(NetworkSampler):
    def __init__(self, problem: SetupContext, source: TrainedOnSynthetic) -> None:
        self._source = source
        self._episode = Episode(source.start.prepare(problem))
        self._augmentation = augmentation_for(problem.real, source.augmentation)

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(self._episode.network(index, seed))

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        views, passes = self._source.loops(synthetic)
        self._episode.served += 1
        if self._episode.served >= views:
            self._episode.end()
            return
        network = self._episode.network(index, seed).requires_grad_(True)
        train_config = self._train_config(passes)
        fit(network, synthetic.inputs, synthetic.labels, train_config, seed=derive_seed(seed, "network training"))
        network.zero_grad(set_to_none=True)
        network.requires_grad_(False)

    def _train_config(self, passes: int) -> TrainConfig:
        return TrainConfig.of(
            self._source.optimiser,
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


@settings
class WatchedTraining(NetworkSource):
    """One network for many views; between them it trains on the synthetic samples for as long as it takes to change.

    After every view the accuracy on real queries is taken. Once it moved by less than ``settled`` over ``window``
    views, a fresh network takes over (Wang et al. 2022: the outer loop). Otherwise the network trains on
    the synthetic samples, pass by pass, until its accuracy moved by more than ``changed`` over the last ``window``
    passes (the inner loop). The paper bounds neither loop; here ``max_views`` and ``max_epochs`` do, for a network
    that has learned all it can would train for ever.

    Queries cost more than everything else on a CPU: 128 of each class, at least 10 times a view. The paper's numbers
    are the defaults; with fewer queries the accuracy is noisier, so that loops end by chance sooner.

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
        learning_rate, batch_size: of plain SGD on the synthetic samples.
        optimiser: in place of that SGD: any callable that takes parameters, or the name of one.
        augmentation: drawn for each sample of a batch while training.
        queries_per_class: real samples a class that an accuracy is measured on; drawn anew each time.
        window: accuracies that are compared.
        settled, changed: see above; accuracies are fractions.
        max_views: of a network.
        max_epochs: passes over the synthetic samples between two views.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    architecture: ArchitectureLike | None = None
    learning_rate: Positive = 0.01
    batch_size: Count = 256
    augmentation: Augmentation | Transform | Plain | None = None
    queries_per_class: Count = 128
    window: Annotated[int, Range(ge=2)] = 10
    settled: NonNegative = 0.04
    changed: NonNegative = 0.03
    max_views: Count = 50
    max_epochs: Count = 50
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        check_optimiser(self, "learning_rate")
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _WatchedSampler(self, problem)


class _WatchedSampler(NetworkSampler):
    """The network in use, and its accuracy after each of its views."""

    def __init__(self, source: WatchedTraining, problem: SetupContext) -> None:
        self._source = source
        self._real = RealSampler(problem.real, problem.device)
        self._train_config = TrainConfig.of(
            source.optimiser,
            epochs=1,
            learning_rate=source.learning_rate,
            momentum=0.0,
            weight_decay=0.0,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=augmentation_for(problem.real, source.augmentation or NoAugmentation()),
        )
        self._episode = Episode(FreshRandom(source.architecture).prepare(problem))
        self._accuracies: list[float] = []

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(self._episode.network(index, seed))

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        network, source = self._episode.network(index, seed), self._source
        self._accuracies.append(self._accuracy(network, derive_seed(seed, "queries")))
        spread = spread_of_last(self._accuracies, source.window)
        if len(self._accuracies) >= source.max_views or (spread is not None and spread < source.settled):
            self._episode.end()
            self._accuracies = []
        else:
            self._train(network, seed, synthetic)

    def state(self) -> dict[str, Any]:
        return {"episode": self._episode.state(), "accuracies": list(self._accuracies)}

    def restore(self, state: dict[str, Any]) -> None:
        self._episode.restore(state["episode"])
        self._accuracies = list(state["accuracies"])

    def _train(self, network: Network, seed: int, synthetic: SyntheticBatch) -> None:
        source, accuracies = self._source, list[float]()
        network.requires_grad_(True)
        for epoch in range(source.max_epochs):
            one = derive_seed(seed, "inner", epoch)
            fit(network, synthetic.inputs, synthetic.labels, self._train_config, seed=one)
            accuracies.append(self._accuracy(network, derive_seed(one, "queries")))
            spread = spread_of_last(accuracies, source.window)
            if spread is not None and spread > source.changed:
                break
        network.requires_grad_(False)
        network.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _accuracy(self, network: Network, seed: int) -> float:
        """Mean over classes of the fraction of queries that the network has right."""
        network.eval()
        inputs, labels = self._real.draw(self._source.queries_per_class, seed)
        predicted = torch.cat([network(part).argmax(dim=1) for (part,) in micro_batches(inputs)])
        right = torch.bincount(labels, weights=(predicted == labels).double())
        counts = torch.bincount(labels)
        return float((right[counts > 0] / counts[counts > 0]).mean())


def spread_of_last(values: Sequence[float] | Tensor, window: int) -> float | None:
    """Largest minus smallest of the last ``window`` values; None where there are fewer."""
    last = list(values)[-window:]
    return max(last) - min(last) if len(last) == window else None
