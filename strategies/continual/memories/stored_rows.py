"""Sets that are stored row by row: they can be cut and united without decoding them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedcl_distill.parameterizations import LowRank, Parameterization, Pixels, Tiles
from fedcl_distill.synthetic import SyntheticSet

_BY_ROWS = (Pixels, Tiles, LowRank)


def stored_by_rows(parameterization: Parameterization) -> bool:
    """Whether each row of the stored arrays decodes by itself, to the same number of samples."""
    return isinstance(parameterization, _BY_ROWS)


def leading_rows(held: SyntheticSet, have: Sequence[int], keep: Sequence[int]) -> SyntheticSet:
    """Of the decoded samples of each class, in order of class and ``have`` of each, the first ``keep``.

    Core sets have the best samples of a class first; others have no order.
    """
    classes = _classes_of_rows(held, have)
    each = _samples_a_row(held)
    kept = [torch.nonzero(classes == label).flatten()[: count // each] for label, count in enumerate(keep)]
    return _rows(held, torch.cat(kept))


def merged(parts: Sequence[SyntheticSet], have: Sequence[Sequence[int]]) -> SyntheticSet:
    """All of ``parts`` in one set, in order of class; ``have`` are the decoded samples of each class in each part.

    Within a class the parts are shuffled into each other evenly, so that whatever is cut off its end takes from each.
    """
    first = parts[0]
    everyone = replace(
        first,
        arrays={name: torch.cat([part.arrays[name] for part in parts]) for name in first.arrays},
        labels=torch.cat([part.labels for part in parts]),
    )
    classes = [_classes_of_rows(part, counts) for part, counts in zip(parts, have, strict=True)]
    places = torch.cat([one.double() + _place_within(one) for one in classes])
    return _rows(everyone, places.argsort(stable=True))


def _place_within(classes: Tensor) -> Tensor:
    """float64 (rows,), in (0, 1): how far through its class each row stands; ``classes`` ascend."""
    counts = torch.bincount(classes)
    first = counts.cumsum(0) - counts
    return (torch.arange(len(classes)) - first[classes] + 0.5) / counts[classes].double()


def _samples_a_row(held: SyntheticSet) -> int:
    return len(held) // len(next(iter(held.arrays.values())))


def _classes_of_rows(held: SyntheticSet, have: Sequence[int]) -> Tensor:
    """int64 (rows,). Labels do not tell where they are soft: the most probable class may be another one."""
    return torch.arange(len(have)).repeat_interleave(torch.tensor(have))[:: _samples_a_row(held)]


def _rows(held: SyntheticSet, rows: Tensor) -> SyntheticSet:
    each = _samples_a_row(held)
    samples = (rows[:, None] * each + torch.arange(each)).flatten()
    return replace(held, arrays={name: array[rows] for name, array in held.arrays.items()}, labels=held.labels[samples])
