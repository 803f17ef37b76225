"""Independent and identically distributed clients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.partition.base import check_request
from fedcl_distill.seeding import generator_for


@dataclass(frozen=True)
class IID:
    """Deal shuffled samples evenly: sizes differ by one at most."""

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[Tensor]:
        check_request(data, clients, min_size)
        order = torch.randperm(len(data), generator=generator_for(seed, "partition", "iid"))
        return [part.sort().values for part in order.tensor_split(clients)]
