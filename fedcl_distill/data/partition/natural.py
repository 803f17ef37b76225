"""Clients that the data bring along: hospitals, writers, devices."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.partition.base import by_client, check_partition, check_request
from fedcl_distill.errors import DataError


@dataclass(frozen=True)
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
