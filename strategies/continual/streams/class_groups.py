"""In which order classes arrive, and in which groups; nothing here knows of Avalanche."""

from __future__ import annotations

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for


def class_order(classes: int, seed: int | None) -> list[int]:
    """The order in which classes arrive: as numbered for None, else a permutation drawn from ``seed``."""
    if seed is None:
        return list(range(classes))
    order: list[int] = torch.randperm(classes, generator=generator_for(seed, "class order")).tolist()
    return order


def group_sizes(classes: int, experiences: int) -> list[int]:
    """How many classes each experience brings; where they do not divide evenly, the first ones get one more.

    Raises:
        SettingsError: there are fewer classes than experiences, or no experience.
    """
    if not 1 <= experiences <= classes:
        raise SettingsError(f"there are {classes} classes, so 1 to {classes} experiences; got {experiences}")
    share, rest = divmod(classes, experiences)
    return [share + (index < rest) for index in range(experiences)]


def class_groups(classes: int, experiences: int, order_seed: int | None) -> list[list[int]]:
    """The classes of each experience; SettingsError as for :func:`group_sizes`."""
    order = iter(class_order(classes, order_seed))
    return [[next(order) for _ in range(size)] for size in group_sizes(classes, experiences)]
