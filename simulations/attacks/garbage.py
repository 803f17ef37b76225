"""Noise."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import settings
from simulations.attacks.base import Attack


@settings(kw_only=True)
class Garbage(Attack):
    """Every value is drawn uniformly from the range that values may have; labels and counts stay as they are."""

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        noise = torch.rand(data.samples.shape, generator=generator_for(seed, "garbage"))
        if data.samples.dtype == torch.uint8:
            return replace(data, samples=(noise * 256).to(torch.uint8))
        low, high = data.value_range
        return replace(data, samples=(low + (high - low) * noise).to(data.samples.dtype))
