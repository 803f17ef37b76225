"""What a part of a method may work with before the first step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from fedcl_distill.data.labelled import LabelledData


@dataclass(frozen=True)
class Problem:
    """One distillation to be done, as its parts see it when they prepare themselves.

    Attributes:
        real: the data to distil.
        seed: names every draw below it; the same problem prepares the same things.
        device: where to compute.
        prepare_until: monotonic time by which expensive preparations (teachers, pools, experts, generators) must end,
            so that a budget in seconds leaves time to distil; infinite for a budget in steps.
    """

    real: LabelledData
    seed: int
    device: torch.device
    prepare_until: float = math.inf

    def has_time(self) -> bool:
        """Whether a preparation may go on. Each must do the least that is usable even where it may not."""
        return time.monotonic() < self.prepare_until
