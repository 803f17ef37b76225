"""How labelled data are divided over clients."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill._imports import require
from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import LabelledData, as_labelled
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Positive, settings


@runtime_checkable
class Partitioner(Protocol):
    """A rule that divides data over clients."""

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        """Return the positions of each client's samples: ``clients`` tensors, int64, ascending.

        Every sample goes to exactly one client, and every client gets at least ``min_size`` samples.

        Raises:
            DataError: these data cannot be divided so.
            SettingsError: a setting that no data could satisfy.
        """
        ...


def check_request(data: LabelledData, clients: int, min_size: int) -> None:
    """Raise unless ``clients`` clients of ``min_size`` samples can be served at all."""
    if clients < 1:
        raise SettingsError(f"clients must be at least 1, got {clients}")
    if min_size < 0:
        raise SettingsError(f"min_size must not be negative, got {min_size}")
    if clients * min_size > len(data):
        raise DataError(f"{data.name}: {len(data)} samples are too few for {clients} clients of at least {min_size}")


def check_partition(parts: Sequence[Tensor], data: LabelledData, clients: int, min_size: int) -> None:
    """Raise DataError unless ``clients`` parts of at least ``min_size`` hold every sample once."""
    if len(parts) != clients:
        raise DataError(f"{data.name}: the partitioner made {len(parts)} parts, expected {clients}")
    together = torch.cat([part.flatten() for part in parts]).sort().values
    if not torch.equal(together, torch.arange(len(data))):
        raise DataError(f"{data.name}: the partition loses or repeats samples")
    smallest = min(range(clients), key=lambda client: len(parts[client]))
    if len(parts[smallest]) < min_size:
        raise DataError(f"{data.name}: client {smallest} gets {len(parts[smallest])} samples, min_size is {min_size}")


def shuffled(positions: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``positions`` in random order."""
    return positions[torch.randperm(len(positions), generator=generator)]


def by_client(owner: Tensor, clients: int) -> list[Tensor]:
    """Turn the owner of each sample, int64 (n,), into each client's positions, ascending."""
    sizes = torch.bincount(owner, minlength=clients)
    return list(torch.argsort(owner, stable=True).tensor_split(sizes.cumsum(0)[:-1]))


PARTITIONERS: Registry[Partitioner] = Registry("partitioner", "fedcl_distill.partitioners", Partitioner)
"""Partitioners by name; another package adds its own by ``@PARTITIONERS.register("mine")`` or an entry point."""

register_partitioner = PARTITIONERS.register


@PARTITIONERS.register("iid")
@settings
class IID:
    """Deal shuffled samples evenly: sizes differ by one at most."""

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        order = torch.randperm(len(data), generator=generator_for(seed, "partition", "iid"))
        return [part.sort().values for part in order.tensor_split(clients)]


@PARTITIONERS.register("dirichlet")
@settings
class Dirichlet:
    """Deal each class over the clients in proportions drawn from Dir(alpha, …, alpha).

    This is the rule of Yurochkin et al. (2019), "Bayesian nonparametric federated learning of neural
    networks", section 4, also in NIID-Bench (Li et al. 2022). Hsu et al. (2019) draw a class mix per client
    instead, so that the same alpha is not the same skew. Small alpha gives few holders a class; large alpha
    approaches equal shares.

    Clients below the minimum size are filled up with random samples of the largest clients; the draw is never
    repeated, so that any alpha works with any number of clients.

    Attributes:
        alpha: concentration, positive and finite.
    """

    alpha: Positive

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        rng = np.random.default_rng(derive_seed(seed, "partition", "dirichlet"))
        generator = generator_for(seed, "partition", "dirichlet")
        owner = torch.empty(len(data), dtype=torch.int64)
        for label in range(data.num_classes):
            members = shuffled(data.indices_of(label), generator)
            shares = _dirichlet(self.alpha, clients, rng)
            cuts = np.floor(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for client, piece in enumerate(members.tensor_split(torch.from_numpy(cuts))):
                owner[piece] = client
        _fill_up(owner, clients, min_size, generator)
        return by_client(owner, clients)


def _dirichlet(alpha: float, clients: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw from the symmetric Dirichlet distribution; float64 (clients,), sums to 1.

    A Gamma(alpha) variable is Gamma(alpha + 1) times U^(1 / alpha). Taking logarithms keeps tiny alpha from
    underflowing to 0 / 0.
    """
    logs = np.log(rng.standard_gamma(alpha + 1, clients)) - rng.standard_exponential(clients) / alpha
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _fill_up(owner: Tensor, clients: int, min_size: int, generator: torch.Generator) -> None:
    """Reassign, in place, random samples of the largest clients to those below ``min_size``."""
    sizes = torch.bincount(owner, minlength=clients)
    lacking = (min_size - sizes).clamp_min(0)
    given = _surplus(sizes.tolist(), int(lacking.sum()))
    # Donor by donor, not mixed: a filled-up client keeps the few classes of its donor.
    moved = [shuffled((owner == donor).nonzero().flatten(), generator)[:count] for donor, count in given.items()]
    if moved:
        owner[torch.cat(moved)] = torch.repeat_interleave(torch.arange(clients), lacking)


def _surplus(sizes: list[int], count: int) -> dict[int, int]:
    """Take ``count`` samples one by one from whoever is largest; return how many each client gives."""
    heap = [(-size, client) for client, size in enumerate(sizes)]
    heapq.heapify(heap)
    given: dict[int, int] = {}
    for _ in range(count):
        size, client = heap[0]
        heapq.heapreplace(heap, (size + 1, client))
        given[client] = given.get(client, 0) + 1
    return given


@PARTITIONERS.register("classes")
@settings
class ClassesPerClient:
    """Give every client exactly ``classes`` classes, and every class to someone.

    The pathological partition of McMahan et al. (2017), section 3, with classes instead of shards: frequent
    classes get more holders, so that clients are alike in size; the holders of a class share it evenly.

    Attributes:
        classes: how many classes each client holds, at least 1.
    """

    classes: Count

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        generator = generator_for(seed, "partition", "classes")
        holders = _holders(_holder_counts(data, clients, self.classes), clients, self.classes, generator)
        owner = torch.empty(len(data), dtype=torch.int64)
        for label in range(data.num_classes):
            members = shuffled(data.indices_of(label), generator)
            clients_of_label = shuffled(holders[:, label].nonzero().flatten(), generator)
            for client, piece in zip(
                clients_of_label.tolist(), members.tensor_split(max(1, len(clients_of_label))), strict=False
            ):
                owner[piece] = client
        parts = by_client(owner, clients)
        check_partition(parts, data, clients, min_size)
        return parts


def _holder_counts(data: LabelledData, clients: int, classes: int) -> Tensor:
    """Return how many clients hold each class, int64 (classes of the data,), in proportion to the classes.

    By D'Hondt's rule: each present class gets one holder, each further one goes to the class whose pieces are
    largest.
    """
    counts = data.class_counts
    present = int((counts > 0).sum())
    if classes > present:
        raise DataError(f"{data.name}: has samples of {present} classes, clients cannot hold {classes} each")
    if clients * classes < present:
        raise DataError(
            f"{data.name}: {clients} clients of {classes} classes cannot cover {present} classes; "
            f"take at least {-(-present // classes)} clients or {-(-present // clients)} classes each"
        )
    most = counts.clamp_max(clients)
    if int(most.sum()) < clients * classes:
        raise DataError(f"{data.name}: has too few samples for {clients} clients of {classes} classes each")
    holders = (counts > 0).long()
    for _ in range(clients * classes - present):
        piece = torch.where(holders < most, counts / holders.clamp_min(1), -1.0)
        holders[piece.argmax()] += 1
    return holders


def _holders(counts: Tensor, clients: int, classes: int, generator: torch.Generator) -> Tensor:
    """Draw which client holds which class: bool (clients, classes of the data), rows and columns sum as
    asked.

    Each client takes the classes that still need most holders, ties at random. That never runs into a dead
    end: it is the construction in the proof of the Gale-Ryser theorem.
    """
    needed = counts.clone()
    chosen = torch.zeros(clients, len(counts), dtype=torch.bool)
    for client in torch.randperm(clients, generator=generator).tolist():
        ties = torch.rand(len(counts), generator=generator, dtype=torch.float64)
        picks = (needed + ties).topk(classes).indices
        chosen[client, picks] = True
        needed[picks] -= 1
    return chosen


@PARTITIONERS.register("natural")
@settings
class Natural:
    """One client for each group that has samples, in the order of the groups; ``seed`` changes nothing."""

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        if data.groups is None:
            raise DataError(f"{data.name}: has no natural groups")
        parts = [part for part in by_client(data.groups, len(data.group_names)) if len(part)]
        if len(parts) != clients:
            raise DataError(f"{data.name}: has {len(parts)} natural groups, {clients} clients were asked for")
        check_partition(parts, data, clients, min_size)
        return parts


@dataclass(frozen=True)
class FlowerDatasetsPartitioner:
    """Divide by an instance of any class in ``flwr_datasets.partitioner``.

    The partitioner sees a data set with the columns "label" (int), "index" (int, the position) and, for data
    with natural groups, "group" (str): give it ``partition_by="label"`` or ``partition_by="group"``. It keeps
    its own seed and minimum size; ``seed`` changes nothing here, ``min_size`` is checked.

    Attributes:
        partitioner: without a data set of its own; it is copied, so that it can be used again.
    """

    partitioner: Any

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        partitioner = copy.deepcopy(self.partitioner)
        partitioner.dataset = _as_hugging_face(data)
        if partitioner.num_partitions != clients:
            raise SettingsError(
                f"{type(partitioner).__name__} makes {partitioner.num_partitions} partitions, "
                f"{clients} clients were asked for"
            )
        parts = [_positions(partitioner.load_partition(client)) for client in range(clients)]
        check_partition(parts, data, clients, min_size)
        return parts


def _as_hugging_face(data: LabelledData) -> Any:
    datasets = require("datasets", "a Flower Datasets partitioner", "flwr-datasets")
    columns: dict[str, list[Any]] = {"label": data.labels.tolist(), "index": list(range(len(data)))}
    if data.groups is not None:
        columns["group"] = [data.group_names[group] for group in data.groups.tolist()]
    return datasets.Dataset.from_dict(columns)


def _positions(partition: Any) -> Tensor:
    return torch.tensor(list(partition["index"]), dtype=torch.int64).sort().values


def parse_partitioner(text: str) -> Partitioner:
    """The partitioner that ``text`` names: "iid", "dirichlet:0.1", "classes:2", "natural", or one of a package outside.

    Raises:
        SettingsError: the name is unknown, or a number is missing or out of range.
    """
    return PARTITIONERS.build(text.strip().lower())


def partition(
    data: DataLike,
    partitioner: Partitioner | str | Mapping[str, Any],
    clients: int | None = None,
    *,
    seed: int = 0,
    min_size: int = 1,
) -> list[LabelledData]:
    """Divide ``data`` over clients.

    Args:
        data: what to divide; any that :func:`~fedcl_distill.data.as_labelled` reads.
        partitioner: the rule, or what :data:`PARTITIONERS` builds it from: "iid", "dirichlet:0.1", "classes:2",
            "natural"; or an instance of a class in ``flwr_datasets.partitioner``.
        clients: how many; default: as many as the data have natural groups.
        seed: fixes the division.
        min_size: the fewest samples of a client; 0 allows empty clients.

    Returns:
        One part a client, named ``<name>/0``, ``<name>/1``, …; together they hold every sample exactly once.

    Raises:
        DataError: these data cannot be divided so.
        SettingsError: settings that no data could satisfy.
    """
    if hasattr(partitioner, "load_partition") and not hasattr(partitioner, "split"):
        partitioner = FlowerDatasetsPartitioner(partitioner)
    rule = parse_partitioner(partitioner) if isinstance(partitioner, str) else PARTITIONERS.build(partitioner)
    data = as_labelled(data)
    if clients is None:
        if data.groups is None:
            raise SettingsError(f"{data.name}: has no natural groups, so the number of clients must be given")
        clients = int((torch.bincount(data.groups) > 0).sum())
    parts = rule.split(data, clients, seed=seed, min_size=min_size)
    check_partition(parts, data, clients, min_size)
    return [data.subset(positions, f"{data.name}/{client}") for client, positions in enumerate(parts)]


__all__ = [
    "IID",
    "PARTITIONERS",
    "ClassesPerClient",
    "Dirichlet",
    "FlowerDatasetsPartitioner",
    "Natural",
    "Partitioner",
    "check_partition",
    "parse_partitioner",
    "partition",
]
