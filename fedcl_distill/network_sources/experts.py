"""Experts: networks trained on the real data, whose paths through weight space are known."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources.base import Drawn, Supply
from fedcl_distill.network_sources.expert_cache import ExpertStore, kind_of_expert, store_for
from fedcl_distill.networks import Architecture, Network, default_architecture
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.training import Recipe, fit


@dataclass(frozen=True)
class ExpertTrajectories:
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
        augmentation: drawn anew for every sample; None takes what suits the data.
        seed: of the experts, so that runs with several seeds can share a cache; None takes the run's.
        cache: folder where snapshots are kept for later runs, about 4 bytes a weight and snapshot; a place on this
            computer, so that it is no part of the settings. None keeps them in memory, of the same size.

    Raises:
        SettingsError: on construction, if a number is not positive.
    """

    gives_goal: ClassVar[bool] = True
    architecture: Architecture | None = None
    runs: int = 100
    latest_start: int = 25
    segment: int = 3
    samples_per_snapshot: int | None = None
    learning_rate: float = 0.01
    momentum: float = 0.0
    batch_size: int = 256
    augmentation: Augmentation | None = None
    seed: int | None = None
    cache: str | os.PathLike[str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        least = min(self.runs, self.latest_start, self.segment, self.batch_size)
        if least < 1 or (self.samples_per_snapshot is not None and self.samples_per_snapshot < 1):
            raise SettingsError("experts need at least one run, start, snapshot a segment, sample a batch and snapshot")
        if self.learning_rate <= 0 or not 0 <= self.momentum < 1:
            raise SettingsError("experts need a positive learning rate and a momentum in [0, 1)")

    def settings(self) -> dict[str, Any]:
        return {
            "networks": "expert trajectories",
            "architecture": str(self.architecture or "default"),
            "expert_runs": self.runs,
            "expert_latest_start": self.latest_start,
            "expert_segment": self.segment,
            "expert_samples_per_snapshot": self.samples_per_snapshot,
            "expert_learning_rate": self.learning_rate,
            "expert_momentum": self.momentum,
            "expert_batch_size": self.batch_size,
            "expert_augmentation": None if self.augmentation is None else self.augmentation.settings(),
            "expert_seed": self.seed,
        }

    def open(self, problem: Problem) -> Supply:
        """Train the experts, or find them in the cache.

        Raises:
            StorageError: the cache cannot be written.
            DivergenceError: an expert's loss stopped being finite.
        """
        experts = Experts.of(problem, self)
        lengths = [0] * self.runs
        for run, number in self._order():
            if not experts.has(run, number):
                if lengths[0] >= self.segment and not problem.has_time():
                    break
                experts.snapshot(run, number)
            lengths[run] = number
        return _ExpertSupply(self, experts, lengths)

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

    problem: Problem
    recipe: Recipe
    samples_per_snapshot: int
    seed: int
    template: Network
    architecture: Architecture
    store: ExpertStore

    @classmethod
    def of(cls, problem: Problem, source: ExpertTrajectories) -> Experts:
        """The experts that ``source`` describes, none of them trained yet."""
        real = problem.real
        architecture = source.architecture or default_architecture(real.sample_shape)
        seed = problem.seed if source.seed is None else source.seed
        recipe = Recipe(
            epochs=1,
            learning_rate=source.learning_rate,
            momentum=source.momentum,
            weight_decay=0.0,
            batch_size=source.batch_size,
            schedule="constant",
            augmentation=source.augmentation or augmentation_for(real),
        )
        template = architecture.build(real.sample_shape, real.num_classes, seed=0, device=problem.device)
        length = source.samples_per_snapshot or len(real)
        size = sum(parameter.numel() for parameter in template.parameters())
        store = store_for(source.cache, kind_of_expert(real, seed, f"{architecture} {recipe} {length}"), size)
        return cls(problem, recipe, length, seed, template.requires_grad_(False), architecture, store)

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
        fit(network.requires_grad_(True), real.inputs(rows), real.labels[rows], self.recipe, seed=seed)
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


class _ExpertSupply(Supply):
    """Draws a run and a start, each pair that is long enough alike; ``lengths``: the last snapshot of each run."""

    def __init__(self, source: ExpertTrajectories, experts: Experts, lengths: list[int]) -> None:
        self._source, self._experts, self._lengths = source, experts, lengths

    def draw(self, index: int, seed: int) -> Drawn:
        segment = self._source.segment
        starts = [min(self._source.latest_start, length - segment + 1) for length in self._lengths]
        pairs = [(run, start) for run, count in enumerate(starts) for start in range(count)]
        chosen = int(torch.randint(len(pairs), (), generator=generator_for(seed, "expert")))
        run, start = pairs[chosen]
        return Drawn(self._experts.network(run, start), self._experts.network(run, start + segment))

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
