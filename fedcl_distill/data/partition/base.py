"""What a partitioner is, and what every partition must fulfil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError


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
