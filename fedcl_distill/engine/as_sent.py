"""Stored arrays as their payload will decode, at every step: quantisation-aware training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedcl_distill.synthetic.quantise import rounded


def as_sent(arrays: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """``arrays``, rounded by the codec's own rule; gradients pass as if they were not.

    Every value lies within its array's range, where the straight-through estimator (Bengio et al. 2013; Jacob et al.
    2018 for quantised networks) is the identity. Rounding what is rounded changes nothing, so that a set of such arrays
    survives its way through the codec to the last bit. Soft labels, sent in 8 bits at least, are not among them.

    Args:
        arrays: float32, finite.
        bits: depth, one of :data:`~fedcl_distill.synthetic.BITS`; 32 gives the arrays themselves.
    """
    if bits == 32:
        return dict(arrays)
    return {name: _straight_through(array, bits) for name, array in arrays.items()}


def _straight_through(array: Tensor, bits: int) -> Tensor:
    values = array.detach()
    sent = torch.from_numpy(rounded(values.cpu().numpy(), bits)).to(values)
    return sent + (array - values)
