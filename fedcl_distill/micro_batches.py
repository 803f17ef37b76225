"""How many samples to put through a network at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CPU_VALUES = 32 * 1024  # values of the input; what a network makes of them is some hundred times as large


def micro_batch_size(inputs: Tensor) -> int:
    """Samples of ``inputs`` (n, …) that one pass should take.

    On a CPU, activations that fit its caches make a pass up to twice as fast as those of a whole batch, which are
    written to memory and read back by every layer; about 32 images of 32×32 pixels are best (ConvNet-3, widths 32 to
    128). Other devices take everything at once. Results differ by rounding alone, for no layer here mixes samples;
    whoever trains networks that do (batch norm) asks for the ``whole`` batch.
    """
    if inputs.device.type != "cpu":
        return max(1, len(inputs))
    return max(16, _CPU_VALUES // math.prod(inputs.shape[1:]))


def micro_batches(*tensors: Tensor, whole: bool = False) -> list[tuple[Tensor, ...]]:
    """``tensors``, of equal length, cut alike into chunks that suit the first; a single one if it must be ``whole``."""
    if whole:
        return [tensors]
    size = micro_batch_size(tensors[0])
    return list(zip(*(torch.split(tensor, size) for tensor in tensors), strict=True))
