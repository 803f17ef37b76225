"""What a part of a method may work with before the first step."""

from __future__ import annotations

from collections.abc import Callable
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
        has_time: whether an expensive preparation (teachers, pools, experts, generators) may go on, so that a budget in
            seconds leaves time to distil; always True for a budget in steps. Each must do the least that is usable even
            where it may not.
    """

    real: LabelledData
    seed: int
    device: torch.device
    has_time: Callable[[], bool] = lambda: True
