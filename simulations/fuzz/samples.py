"""Small data, sets and statistics that seeds are made of."""

from __future__ import annotations

from functools import cache

import torch

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.seeding import generator_for


@cache
def images() -> LabelledData:
    """24 grey images of 6×6 pixels in 3 classes."""
    values = torch.randint(0, 256, (24, 1, 6, 6), dtype=torch.uint8, generator=generator_for(0, "images"))
    return LabelledData.from_tensors(values, torch.arange(24) % 3, name="images")


@cache
def features() -> LabelledData:
    """24 vectors of 4 numbers in 3 classes."""
    values = torch.rand(24, 4, generator=generator_for(0, "features"))
    return LabelledData.from_tensors(values, torch.arange(24) % 3, name="features")


def splits() -> Splits:
    return Splits(features(), features())
