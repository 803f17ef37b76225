"""Partitioners of Flower Datasets (the package ``flwr-datasets``), used on data in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.optional import require
from fedcl_distill.data.partition.base import check_partition, check_request
from fedcl_distill.errors import SettingsError


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
