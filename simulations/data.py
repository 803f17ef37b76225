"""Data for simulations: loaded by name, thinned where a small machine asks for it."""

from __future__ import annotations

import torch

from fedcl_distill.data import LabelledData, Splits, load
from fedcl_distill.errors import DataError
from fedcl_distill.seeding import generator_for


def load_splits(name: str, *, root: str | None = None, train_limit: int | None = None, seed: int = 0) -> Splits:
    """Load ``name`` and keep at most ``train_limit`` training samples, drawn at random; the test data stay whole."""
    splits = load(name, root=root)
    if train_limit is None or train_limit >= len(splits.train):
        return splits
    return Splits(_thin(splits.train, train_limit, seed), splits.test)


def held_out(splits: Splits, share: float, seed: int) -> Splits:
    """``splits`` without their test data: ``share`` of the training data stands in for these.

    That share of every class, rounded, is drawn at random; every class with two samples keeps one for training.

    Args:
        splits: of which the test data are not looked at.
        share: in (0, 1).
        seed: of the draw.

    Raises:
        DataError: no class has enough samples to hold one out.
    """
    train = splits.train
    generator = generator_for(seed, "validation")
    chosen = torch.zeros(len(train), dtype=torch.bool)
    for label in range(train.num_classes):
        members = train.indices_of(label)
        count = min(round(share * len(members)), len(members) - 1)
        chosen[members[torch.randperm(len(members), generator=generator)[: max(count, 0)]]] = True
    if not chosen.any():
        raise DataError(f"{train.name}: too few samples to hold out {100 * share:g} % of every class")
    return Splits(*(train.subset(part.nonzero().flatten()) for part in (~chosen, chosen)))


def _thin(data: LabelledData, limit: int, seed: int) -> LabelledData:
    order = torch.randperm(len(data), generator=generator_for(seed, "thin"))
    return data.subset(order[:limit].sort().values)
