"""Label skew drawn from a Dirichlet distribution."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.partition.base import by_client, check_request, shuffled
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed, generator_for


@dataclass(frozen=True)
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

    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise SettingsError(f"alpha must be positive and finite, got {self.alpha}")

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
