"""Expert trajectories: training runs on the real data, kept on disk, and given ones."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fedcl_distill.augmentation import Augmentation, Transform, augmentation_for
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.context import SetupContext
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.files import write_atomically
from fedcl_distill.network_sources.base import DrawnNetwork, NetworkSampler, NetworkSource, digest_of
from fedcl_distill.networks import (
    Architecture,
    ArchitectureLike,
    Network,
    adapted,
    architecture_for,
    as_architecture,
    check_weights_alone,
)
from fedcl_distill.optimisers import Optimiser, check_optimiser
from fedcl_distill.registry import Plain, describe
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Momentum, Positive, settings
from fedcl_distill.training import TrainConfig, fit

_LOG = logging.getLogger(__name__)
_WEIGHTS, _DIGEST = "weights", "sha256"
_FORMAT = 1  # to be raised when training comes to mean something else, so that older experts are not taken for new


class ExpertStore(Protocol):
    """Snapshots by run and number; a snapshot is float32 (parameters,): all weights of a network in a row."""

    def has(self, run: int, number: int) -> bool:
        """Whether there is such a snapshot; it may still turn out to be damaged."""
        ...

    def load(self, run: int, number: int) -> Tensor | None:
        """The snapshot; None where there is none, or where it is damaged."""
        ...

    def save(self, run: int, number: int, weights: Tensor) -> None:
        """Keep a snapshot.

        Raises:
            StorageError: it could not be written.
        """
        ...


@dataclass
class InMemory:
    """Keeps snapshots for as long as the process lives."""

    snapshots: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def has(self, run: int, number: int) -> bool:
        return (run, number) in self.snapshots

    def load(self, run: int, number: int) -> Tensor | None:
        return self.snapshots.get((run, number))

    def save(self, run: int, number: int, weights: Tensor) -> None:
        self.snapshots[run, number] = weights


@dataclass(frozen=True)
class OnDisk:
    """One safetensors file a snapshot, in a folder a run.

    Each is written atomically and carries the SHA-256 of its weights: a killed run goes on from its last snapshot, and
    a file that is cut or altered is not trusted. Parallel processes may share a folder, for they write the same.

    Attributes:
        folder: of one kind of expert, see :func:`kind_of_expert`.
        size: number of weights that a snapshot must have.
    """

    folder: Path
    size: int

    def has(self, run: int, number: int) -> bool:
        return self._path(run, number).exists()

    def load(self, run: int, number: int) -> Tensor | None:
        path = self._path(run, number)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                weights: Tensor = file.get_tensor(_WEIGHTS)
                digest = (file.metadata() or {}).get(_DIGEST)
        except (OSError, SafetensorError, ValueError) as error:
            _LOG.warning("expert snapshot %s cannot be read and is trained anew: %s", path, error)
            return None
        if weights.dtype != torch.float32 or weights.shape != (self.size,) or digest != _digest(weights):
            _LOG.warning("expert snapshot %s is damaged and is trained anew", path)
            return None
        return weights

    def save(self, run: int, number: int, weights: Tensor) -> None:
        content = save({_WEIGHTS: weights.contiguous()}, metadata={_DIGEST: _digest(weights)})
        write_atomically(self._path(run, number), content)

    def _path(self, run: int, number: int) -> Path:
        return self.folder / f"run-{run:04d}" / f"snapshot-{number:04d}.safetensors"


def kind_of_expert(real: LabelledData, seed: int, training: str) -> str:
    """Names a folder: the same data, seed and description of the training, the same name; else another one."""
    traits = (real.class_names, real.normalisation.mean, real.normalisation.std, str(real.samples.dtype))
    return f"experts-{fingerprint(real, [_FORMAT, traits, list(real.samples.shape), seed, training])[:24]}"


def store_for(cache: str | os.PathLike[str] | None, kind: str, size: int) -> ExpertStore:
    """On disk below ``cache``, or in memory where that is None."""
    return InMemory() if cache is None else OnDisk(Path(cache) / kind, size)


def _digest(weights: Tensor) -> str:
    return hashlib.sha256(weights.contiguous().numpy().data).hexdigest()


@settings
class ExpertTrajectories(NetworkSource):
    """Networks on the way of a training on the real data, each with where it is after more of it.

    An expert's path is a row of snapshots of its weights: number 0 before training, one more after every
    ``samples_per_snapshot`` samples. A view starts at a random snapshot below ``latest_start`` (T⁺ of the paper) of a
    random run, and its goal is the snapshot ``segment`` (M) later. The published setting is 100 runs, a snapshot an
    epoch, SGD of rate 0.01 without momentum or weight decay, batches of 256, DSA (Cazenavette et al. 2022, and their
    code).

    No run is trained further than views can look: ``latest_start + segment − 1`` snapshots. The number of runs and
    their length grow together, so that a budget that ends early leaves several starts of several runs; one segment is
    always trained. For minutes of CPU, let snapshots be closer than an epoch (some thousand samples).

    Attributes:
        architecture: of the experts; None takes a ConvNet for images and an MLP for features.
        runs: how many experts.
        latest_start: number of snapshots at which a view may start: 0, …, ``latest_start − 1``.
        segment: snapshots from start to goal.
        samples_per_snapshot: training samples between two snapshots; None takes an epoch.
        learning_rate, batch_size: of SGD.
        momentum: of SGD; it starts from rest at every snapshot, so that a snapshot is all there is to know.
        optimiser: in place of SGD: any callable that takes parameters, or the name of one; it starts anew likewise.
            Students train by steps of SGD in any case, which gradients can pass.
        augmentation: drawn anew for every sample; None takes what suits the data.
        seed: of the experts, so that runs with several seeds can share a cache; None takes the run's.
        cache: folder where snapshots are kept for later runs, about 4 bytes a weight and snapshot; a place on this
            computer, so that it is no part of the settings. None keeps them in memory, of the same size.

    Raises:
        SettingsError: on construction, if a number is not positive.
    """

    gives_target: ClassVar[bool] = True
    architecture: ArchitectureLike | None = None
    runs: Count = 100
    latest_start: Count = 25
    segment: Count = 3
    samples_per_snapshot: Count | None = None
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.0
    batch_size: Count = 256
    augmentation: Augmentation | Transform | Plain | None = None
    seed: int | None = None
    cache: str | os.PathLike[str] | None = field(default=None, compare=False, repr=False)
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        check_optimiser(self, "learning_rate", "momentum")
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """Train the experts, or find them in the cache.

        Raises:
            StorageError: the cache cannot be written.
            DivergenceError: an expert's loss stopped being finite.
        """
        experts = Experts.of(problem, self)
        lengths = [0] * self.runs
        total = self.runs * (self.latest_start - 1 + self.segment)
        for done, (run, number) in enumerate(self._order(), start=1):
            if not experts.has(run, number):
                if lengths[0] >= self.segment and not problem.has_time():
                    break
                experts.snapshot(run, number)
            lengths[run] = number
            problem.report(done, total, "experts")
        return _ExpertSampler(self, experts, lengths)

    def _order(self) -> Iterator[tuple[int, int]]:
        """Run and number of every snapshot, in the order of training: at level n, n runs offer n starts each."""
        lengths = [0] * self.runs
        for level in range(1, max(self.runs, self.latest_start) + 1):
            for run in range(min(level, self.runs)):
                while lengths[run] < min(level, self.latest_start) - 1 + self.segment:
                    lengths[run] += 1
                    yield run, lengths[run]


@dataclass(frozen=True)
class Experts:
    """Trains snapshots, each from the one before, unless they are kept already. What a snapshot is follows from the
    data, the settings and the seed alone: a lost one is trained again to the same bits.
    """

    problem: SetupContext
    train_config: TrainConfig
    samples_per_snapshot: int
    seed: int
    template: Network
    architecture: Architecture
    store: ExpertStore

    @classmethod
    def of(cls, problem: SetupContext, source: ExpertTrajectories) -> Experts:
        """The experts that ``source`` describes, none of them trained yet."""
        real = problem.real
        architecture = architecture_for(source.architecture, real.sample_shape)
        seed = problem.seed if source.seed is None else source.seed
        train_config = TrainConfig.of(
            source.optimiser,
            epochs=1,
            learning_rate=source.learning_rate,
            momentum=source.momentum,
            weight_decay=0.0,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=augmentation_for(real, source.augmentation),
        )
        template = architecture.build(real.sample_shape, real.num_classes, seed=0, device=problem.device)
        check_weights_alone(template, "an expert trajectory")
        length = source.samples_per_snapshot or len(real)
        size = sum(parameter.numel() for parameter in template.parameters())
        kind = kind_of_expert(real, seed, f"{architecture} {describe(train_config)} {length}")
        store = store_for(source.cache, kind, size)
        return cls(problem, train_config, length, seed, template.requires_grad_(False), architecture, store)

    def has(self, run: int, number: int) -> bool:
        """Whether this snapshot costs no training."""
        return self.store.has(run, number)

    def network(self, run: int, number: int) -> Network:
        """The expert of ``run`` at this snapshot, constant."""
        network = copy.deepcopy(self.template)
        _put(network, self.snapshot(run, number))
        return network

    def snapshot(self, run: int, number: int) -> Tensor:
        """float32 (parameters,): the weights of ``run`` at snapshot ``number``, on the CPU."""
        first, known = number, self.store.load(run, number)
        while known is None and first > 0:  # back to the last one that is sound
            first -= 1
            known = self.store.load(run, first)
        if known is None:
            known = _weights(self._untrained(run))
            self.store.save(run, 0, known)
        for later in range(first + 1, number + 1):
            known = self._trained(run, later, known)
            self.store.save(run, later, known)
        return known

    def _untrained(self, run: int) -> Network:
        real = self.problem.real
        seed = derive_seed(self.seed, "expert", run)
        return self.architecture.build(real.sample_shape, real.num_classes, seed=seed, device=self.problem.device)

    def _trained(self, run: int, number: int, before: Tensor) -> Tensor:
        network = copy.deepcopy(self.template)
        _put(network, before)
        rows = self._rows(run, number)
        real = self.problem.real
        seed = derive_seed(self.seed, "expert", run, "snapshot", number)
        fit(network.requires_grad_(True), real.inputs(rows), real.labels[rows], self.train_config, seed=seed)
        return _weights(network)

    def _rows(self, run: int, number: int) -> Tensor:
        """int64 (samples,): those seen before snapshot ``number``, a piece of an endless row of shuffled epochs."""
        count = len(self.problem.real)
        start = (number - 1) * self.samples_per_snapshot
        end = start + self.samples_per_snapshot
        epochs = range(start // count, -(-end // count))
        orders = [torch.randperm(count, generator=generator_for(self.seed, "expert", run, "epoch", e)) for e in epochs]
        offset = epochs.start * count
        return torch.cat(orders)[start - offset : end - offset]


class _ExpertSampler(NetworkSampler):
    """Draws a run and a start, each pair that is long enough alike; ``lengths``: the last snapshot of each run."""

    def __init__(self, source: ExpertTrajectories, experts: Experts, lengths: list[int]) -> None:
        self._source, self._experts, self._lengths = source, experts, lengths

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        segment = self._source.segment
        starts = [min(self._source.latest_start, length - segment + 1) for length in self._lengths]
        pairs = [(run, start) for run, count in enumerate(starts) for start in range(count)]
        chosen = int(torch.randint(len(pairs), (), generator=generator_for(seed, "expert")))
        run, start = pairs[chosen]
        return DrawnNetwork(self._experts.network(run, start), self._experts.network(run, start + segment))

    def state(self) -> dict[str, Any]:
        return {"lengths": list(self._lengths)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with exactly the experts of the run's first sitting, whatever there was time for in this one."""
        self._lengths = [int(length) for length in state["lengths"]]


def _weights(network: Network) -> Tensor:
    """float32 (parameters,) on the CPU."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).cpu()


@torch.no_grad()
def _put(network: Network, weights: Tensor) -> None:
    parameters = list(network.parameters())
    pieces = torch.split(weights, [one.numel() for one in parameters])
    for parameter, values in zip(parameters, pieces, strict=True):
        parameter.copy_(values.view(parameter.shape))


@settings
class GivenTrajectory(NetworkSource):
    """Each view starts at a random snapshot, and its goal is the snapshot ``segment`` later.

    Attributes:
        snapshots: networks of one architecture, in the order of time.
        segment: snapshots from start to goal.

    Raises:
        SettingsError: on construction, if no snapshot is ``segment`` ≥ 1 after another.
    """

    gives_target: ClassVar[bool] = True
    snapshots: tuple[nn.Module, ...] = field(compare=False)
    segment: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.segment < len(self.snapshots):
            raise SettingsError(
                f"a trajectory of {len(self.snapshots)} snapshots has no two that are {self.segment} apart; "
                "take more snapshots, or a segment of at least 1 and less than their number"
            )

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        real = problem.real
        return _Sampler(
            problem, [adapted(one, real.sample_shape, real.num_classes) for one in self.snapshots], self.segment
        )

    def describe(self) -> dict[str, Any]:
        """The plain form; weights are named by digests."""
        snapshots = [digest_of(network) for network in self.snapshots]
        return {"name": type(self).__name__, "segment": self.segment, "snapshots": snapshots}


@dataclass
class _Sampler(NetworkSampler):
    problem: SetupContext
    snapshots: list[Network]
    segment: int

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        starts = len(self.snapshots) - self.segment
        start = int(torch.randint(starts, (), generator=generator_for(seed, "snapshot")))
        return DrawnNetwork(self._copy(start), self._copy(start + self.segment))

    def _copy(self, number: int) -> Network:
        return copy.deepcopy(self.snapshots[number]).to(self.problem.device).requires_grad_(False)
