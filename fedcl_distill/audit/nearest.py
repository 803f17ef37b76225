"""How near a sample is to the synthetic ones of its class."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.networks import default_architecture
from fedcl_distill.seeding import derive_seed

_QUERIES_AT_ONCE = 512
_WIDTH, _NETWORKS = 32, 3


def nearest(queries: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance of each query to the nearest reference of its class, and which one it is.

    Args:
        queries, references: floats (n, …) and (m, …).
        labels, reference_labels: int64 (n,) and (m,).

    Returns:
        float32 (n,) distances and int64 (n,) positions among ``references``; infinity and −1 where the class has none.
    """
    distances = torch.full((len(queries),), torch.inf)
    positions = torch.full((len(queries),), -1)
    for label in torch.unique(labels).tolist():
        among = (reference_labels == label).nonzero().flatten()
        if not len(among):
            continue
        for rows in torch.split((labels == label).nonzero().flatten(), _QUERIES_AT_ONCE):
            pairs = _distances(queries[rows], references[among])
            distances[rows], place = pairs.min(dim=1)
            positions[rows] = among[place]
    return distances, positions


def random_features(inputs: Tensor, *, seed: int) -> Tensor:
    """float32 (n, features): embeddings of network inputs (n, …) under three untrained networks, side by side.

    Distances there forgive small shifts that distances of pixels do not.
    """
    shape = tuple(inputs.shape[1:])
    networks = [
        default_architecture(shape, _WIDTH).build(shape, 2, seed=derive_seed(seed, "feature network", index))
        for index in range(_NETWORKS)
    ]
    with torch.no_grad():
        parts = [torch.cat([one.embed(part) for part in torch.split(inputs, _QUERIES_AT_ONCE)]) for one in networks]
    return torch.cat(parts, dim=1)


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """Without the shortcut by matrix products, whose rounding hides exact copies."""
    return torch.cdist(left.flatten(1), right.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
