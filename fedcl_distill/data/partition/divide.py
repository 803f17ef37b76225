"""From data and a rule to the data of each client."""

from __future__ import annotations

import torch

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.partition.base import Partitioner, check_partition
from fedcl_distill.data.partition.parse import parse_partitioner
from fedcl_distill.errors import SettingsError


def partition(
    data: LabelledData,
    partitioner: Partitioner | str,
    clients: int | None = None,
    *,
    seed: int = 0,
    min_size: int = 1,
) -> list[LabelledData]:
    """Divide ``data`` over clients.

    Args:
        data: what to divide.
        partitioner: the rule, or its text for :func:`parse_partitioner`.
        clients: how many; default: as many as the data have natural groups.
        seed: fixes the division.
        min_size: the fewest samples of a client; 0 allows empty clients.

    Returns:
        One part a client, named ``<name>/0``, ``<name>/1``, …; together they hold every sample exactly once.

    Raises:
        DataError: these data cannot be divided so.
        SettingsError: settings that no data could satisfy.
    """
    rule = parse_partitioner(partitioner) if isinstance(partitioner, str) else partitioner
    if clients is None:
        if data.groups is None:
            raise SettingsError(f"{data.name}: has no natural groups, so the number of clients must be given")
        clients = int((torch.bincount(data.groups) > 0).sum())
    parts = rule.split(data, clients, seed=seed, min_size=min_size)
    check_partition(parts, data, clients, min_size)
    return [data.subset(positions, f"{data.name}/{client}") for client, positions in enumerate(parts)]
