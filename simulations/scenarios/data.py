"""Data for simulations: loaded by name, thinned where a small machine asks for it."""

from __future__ import annotations

import torch

from fedcl_distill.data import LabelledData, Splits, load
from fedcl_distill.seeding import generator_for


def load_splits(name: str, *, root: str | None = None, train_limit: int | None = None, seed: int = 0) -> Splits:
    """Load ``name`` and keep at most ``train_limit`` training samples, drawn at random; the test data stay whole."""
    splits = load(name, root=root)
    if train_limit is None or train_limit >= len(splits.train):
        return splits
    return Splits(_thin(splits.train, train_limit, seed), splits.test)


def _thin(data: LabelledData, limit: int, seed: int) -> LabelledData:
    order = torch.randperm(len(data), generator=generator_for(seed, "thin"))
    return data.subset(order[:limit].sort().values)
