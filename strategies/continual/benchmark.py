"""A data set as a stream of experiences."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark

from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for
from strategies.continual.avalanche_data import inputs_dataset


def class_order(classes: int, seed: int | None) -> list[int]:
    """The order in which classes arrive: as numbered for None, else a permutation drawn from ``seed``."""
    if seed is None:
        return list(range(classes))
    order: list[int] = torch.randperm(classes, generator=generator_for(seed, "class order")).tolist()
    return order


def class_incremental(splits: Splits, experiences: int, *, order_seed: int | None = None) -> Any:
    """Classes arrive in ``experiences`` groups, one after the other; the model is never told which group it sees.

    Where the classes do not divide evenly, the first experiences get one more: no class is left out.

    Args:
        splits: training and test data.
        experiences: how many.
        order_seed: draws the order of classes; None keeps it as numbered.

    Returns:
        An Avalanche benchmark with a train and a test stream, items (normalised input, label, task 0).

    Raises:
        SettingsError: there are fewer classes than experiences.
        DataError: a class has no training sample.
    """
    classes = splits.train.num_classes
    if not 1 <= experiences <= classes:
        raise SettingsError(
            f"{splits.train.name} has {classes} classes, so 1 to {classes} experiences; got {experiences}"
        )
    splits.train.require_every_class()
    share, rest = divmod(classes, experiences)
    return nc_benchmark(
        inputs_dataset(splits.train),
        inputs_dataset(splits.test),
        n_experiences=experiences,
        task_labels=False,
        fixed_class_order=class_order(classes, order_seed),
        per_exp_classes={index: share + (index < rest) for index in range(experiences)} if rest else None,
    )
