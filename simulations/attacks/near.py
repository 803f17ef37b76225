"""An attacker who knows that samples are compared in the space of random networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.networks import default_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import derive_seed
from simulations.attacks.base import Attack


@dataclass(frozen=True, kw_only=True)
class NearTarget(Attack):
    """Every class is filled with the samples of other classes that look most like it.

    The attacker's features are those of a random network of its own, as the server's are of the server's; "like" is
    near the mean of its own samples of the class. Each sample gets the label of the wrong class that it is nearest to.

    Attributes:
        width: of the network.
    """

    width: int = 32

    @torch.no_grad()
    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        present = torch.nonzero(data.class_counts).flatten()
        if len(present) < 2:
            return data
        points = self._embed(data, seed)
        means = torch.stack([points[data.indices_of(label)].mean(dim=0) for label in present.tolist()])
        distances = torch.cdist(points, means)
        distances[data.labels[:, None] == present] = torch.inf
        return replace(data, labels=present[distances.argmin(dim=1)])

    def _embed(self, data: LabelledData, seed: int) -> Tensor:
        architecture = default_architecture(data.sample_shape, self.width)
        network = architecture.build(data.sample_shape, data.num_classes, seed=derive_seed(seed, "near")).eval()
        return torch.cat([network.embed(part) for (part,) in micro_batches(data.inputs())])
