"""Core-set selection: which real samples stand best for their class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks import ArchitectureLike, Network, architecture_for, as_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Natural, Positive, Range, settings
from fedcl_distill.training import TrainConfig, fit, predict, train_config_for


@runtime_checkable
class Criterion(Protocol):
    """Chooses samples of one class."""

    @property
    def name(self) -> str: ...

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d): every sample as the criterion sees it, all classes at once."""
        ...

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """int64 (count,): distinct positions in ``embeddings`` (m, d) of one class, m ≥ count ≥ 1, best first."""
        ...


SELECTIONS: Registry[Criterion] = Registry("selection", "fedcl_distill.selections", Criterion)
register_selection = SELECTIONS.register


def select(real: LabelledData, counts: Sequence[int], criterion: Criterion, *, seed: int) -> Tensor:
    """int64 (sum of counts,): positions of the chosen samples in ``real``, in order of class."""
    embeddings = criterion.embed(real, derive_seed(seed, "embed"))
    chosen = []
    for label, count in enumerate(counts):
        if count:
            rows = real.indices_of(label)
            chosen.append(rows[criterion.choose(embeddings[rows], count, generator_for(seed, "choose", label))])
    return torch.cat(chosen)


_WIDTH = 64
_PART = 1024  # samples that are float32 at a time


@runtime_checkable
class Embedding(Protocol):
    """Maps every sample of a data set to a vector."""

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d)."""
        ...


EMBEDDINGS: Registry[Embedding] = Registry("embedding", "fedcl_distill.embeddings", Embedding)


@EMBEDDINGS.register("inputs")
@settings
class Inputs:
    """The normalised samples themselves, flattened: no network, no training."""

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return real.inputs().flatten(1)


@EMBEDDINGS.register("thumbnails")
@settings
class Thumbnails:
    """Images averaged down to a few pixels, flattened; samples that are no images as they are.

    Distances between thumbnails nearly rank like those between images, and cost a tenth of the time and memory.

    Attributes:
        side: pixels of height and of width at most.

    Raises:
        SettingsError: on construction, if ``side`` is below 1.
    """

    side: Count = 8

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        parts = (slice(start, start + _PART) for start in range(0, len(real), _PART))
        return torch.cat([self._shrink(real.inputs(part)).flatten(1) for part in parts])

    def _shrink(self, inputs: Tensor) -> Tensor:
        if inputs.dim() != 4:
            return inputs
        height, width = (min(side, self.side) for side in inputs.shape[2:])
        return F.adaptive_avg_pool2d(inputs, (height, width))


@EMBEDDINGS.register("trained")
@settings
class TrainedEmbedding:
    """The penultimate layer of a network trained on the data itself, as the papers' herding uses.

    Attributes:
        architecture: of the network; None takes a ConvNet for images and an MLP for features, of width 64.
        train_config: how it is trained; None takes :func:`~fedcl_distill.training.train_config_for`.
    """

    architecture: ArchitectureLike | None = None
    train_config: TrainConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        architecture = architecture_for(self.architecture, real.sample_shape, _WIDTH)
        network = architecture.build(real.sample_shape, real.num_classes, seed=derive_seed(seed, "weights"))
        fit(network, real.inputs(), real.labels, self.train_config or train_config_for(real), seed=seed)
        return _embed(network, real)


@torch.no_grad()
def _embed(network: Network, real: LabelledData) -> Tensor:
    network.eval()
    return torch.cat([network.embed(part) for (part,) in micro_batches(real.inputs())])


@register_selection("random")
@settings
class Random:
    """Uniformly random samples."""

    name: ClassVar[str]

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return torch.empty(len(real), 0)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(embeddings), generator=generator)[:count]


@register_selection("herding")
@settings
class Herding:
    """Greedily keeps the mean of the chosen close to the mean of all (Welling 2009; Rebuffi et al. 2017)."""

    name: ClassVar[str]
    embedding: Annotated[Embedding, EMBEDDINGS] = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        mean = embeddings.mean(dim=0)
        squares = embeddings.square().sum(dim=1)
        total = torch.zeros_like(mean)
        chosen: list[int] = []
        for step in range(1, count + 1):
            wanted = step * mean - total  # the next sample should equal this
            distance = squares - 2 * (embeddings @ wanted)
            distance[chosen] = float("inf")
            chosen.append(int(distance.argmin()))
            total += embeddings[chosen[-1]]
        return torch.tensor(chosen)


@register_selection("closest-to-mean")
@settings
class ClosestToMean:
    """The samples nearest to the mean of their class, each by itself (as some continual-learning memories do).

    Unlike herding it does not look at what was chosen already, so that several samples may be much alike.
    """

    name: ClassVar[str]
    embedding: Annotated[Embedding, EMBEDDINGS] = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        distances = (embeddings - embeddings.mean(dim=0)).square().sum(dim=1)
        return distances.argsort(stable=True)[:count]


@register_selection("k-center")
@settings
class KCenter:
    """Greedily covers the class: each sample is the farthest from those chosen (Sener and Savarese 2018).

    Starts from the sample closest to the mean, so that the result does not depend on a random first pick.
    """

    name: ClassVar[str]
    embedding: Annotated[Embedding, EMBEDDINGS] = field(default_factory=Inputs)

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        chosen = [int((embeddings - embeddings.mean(dim=0)).square().sum(dim=1).argmin())]
        distance = torch.full((len(embeddings),), float("inf"))
        while len(chosen) < count:
            distance = torch.minimum(distance, (embeddings - embeddings[chosen[-1]]).square().sum(dim=1))
            distance[chosen] = -1.0
            chosen.append(int(distance.argmax()))
        return torch.tensor(chosen)


@register_selection("kmeans")
@settings
class KMeansCentres:
    """One sample for each of as many clusters as samples are wanted, the one nearest to its centre.

    Clusters are those of k-means (Lloyd 1982), started by k-means++ (Arthur and Vassilvitskii 2007). As a start for
    distilling they get there sooner than random samples do (Liu et al. 2023, DREAM, who draw real batches so as well).
    Samples of large clusters come first.

    Attributes:
        embedding: where distances are taken. Among thumbnails of CIFAR-10 the search takes an eighth of the time that
            it takes among whole images, and real images are 2 % farther from the nearest chosen one.
        iterations: of k-means at most; it ends sooner where nothing changes.

    Raises:
        SettingsError: on construction, if the number of iterations is negative.
    """

    name: ClassVar[str]
    embedding: Annotated[Embedding, EMBEDDINGS] = field(default_factory=Thumbnails)
    iterations: Natural = 15

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        return self.embedding.embed(real, seed)

    def choose(self, embeddings: Tensor, count: int, generator: torch.Generator) -> Tensor:
        centres = k_means(embeddings, spread_out(embeddings, count, generator), self.iterations)
        distances = squared_distances(embeddings, centres)
        sizes = torch.bincount(distances.argmin(dim=1), minlength=count)
        chosen: list[int] = []
        for cluster in sizes.argsort(descending=True, stable=True).tolist():
            distances[chosen, cluster] = torch.inf  # centres of few samples may have the same nearest one
            chosen.append(int(distances[:, cluster].argmin()))
        return torch.tensor(chosen)


def spread_out(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, d): some of ``points`` (m, d), each drawn in proportion to its squared distance from those before it.

    The first centres of k-means++; points that are all alike are drawn at random.
    """
    centres = [points[torch.randint(len(points), (1,), generator=generator)]]
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    while len(centres) < count:
        nearest = torch.minimum(nearest, squared_distances(points, centres[-1])[:, 0])
        weights = nearest.double() if nearest.sum() > 0 else torch.ones_like(nearest)
        centres.append(points[torch.multinomial(weights, 1, generator=generator)])
    return torch.cat(centres)


def k_means(points: Tensor, centres: Tensor, iterations: int) -> Tensor:
    """(k, d): centres of ``points`` (m, d) after Lloyd's algorithm from ``centres``; an empty cluster keeps its own."""
    owners: Tensor | None = None
    for _ in range(iterations):
        before, owners = owners, squared_distances(points, centres).argmin(dim=1)
        if before is not None and torch.equal(before, owners):
            break
        counts = torch.bincount(owners, minlength=len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, owners, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """(m, k), not negative, without any tensor of size m · k · d."""
    products = points @ centres.T
    lengths = points.square().sum(dim=1)[:, None] + centres.square().sum(dim=1)
    return (lengths - 2 * products).clamp_(min=0)


_FORGETTING_WIDTH = 32
_NEVER_LOOKED_AT = -1.0


@register_selection("forgetting")
@settings
class Forgetting:
    """Prefers samples that a network in training forgets most often.

    A network trains on candidates of the real data; after every pass it is seen which of them it has right. A sample is
    forgotten when it was right after one pass and is wrong after the next; one that is never right counts as forgotten
    most (Toneva et al. 2019, who look at each sample whenever it is in a batch). Ties are broken at random.

    Attributes:
        epochs: passes over the candidates, at least 2: forgetting is seen between passes.
        candidates_per_class: random samples of each class that are looked at, so that a large data set takes minutes on
            a CPU; None looks at all. Others are chosen only where candidates run out.
        architecture: of the network; None takes a ConvNet for images and an MLP for features, of width 32.
        learning_rate, batch_size: of SGD with momentum 0.9 while training.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    name: ClassVar[str]
    epochs: Annotated[int, Range(ge=2)] = 10
    candidates_per_class: Count | None = 500
    architecture: ArchitectureLike | None = None
    learning_rate: Positive = 0.01
    batch_size: Count = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

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
        architecture = architecture_for(self.architecture, data.sample_shape, _FORGETTING_WIDTH)
        network = architecture.build(data.sample_shape, data.num_classes, seed=derive_seed(seed, "weights"))
        train_config = TrainConfig(1, learning_rate=self.learning_rate, batch_size=self.batch_size, schedule="constant")
        inputs, right = data.inputs(), []
        for epoch in range(self.epochs):
            fit(network, inputs, data.labels, train_config, seed=derive_seed(seed, "pass", epoch))
            right.append(predict(network, data) == data.labels)
        return torch.stack(right)


def forgetting_scores(right: Tensor) -> Tensor:
    """float32 (n,): how often each sample went from right to wrong; the number of passes for one that was never right.

    Args:
        right: bool (passes, n): whether each sample was classified correctly after each pass.
    """
    events = (right[:-1] & ~right[1:]).sum(dim=0)
    return torch.where(right.any(dim=0), events, len(right)).float()


__all__ = [
    "EMBEDDINGS",
    "SELECTIONS",
    "ClosestToMean",
    "Criterion",
    "Embedding",
    "Forgetting",
    "Herding",
    "Inputs",
    "KCenter",
    "KMeansCentres",
    "Random",
    "Thumbnails",
    "TrainedEmbedding",
    "register_selection",
    "select",
]
