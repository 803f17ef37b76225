"""How much one party may count for beside the others, whatever it says of itself."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError


def check_share(share: float) -> float:
    """``share``, the most that one party may count for.

    Raises:
        SettingsError: it is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise SettingsError(f"the most that one client may count for must be in (0, 1], got {share}")
    return share


def capped(weights: Tensor, share: float) -> Tensor:
    """float64 (n,): ``weights`` (n,), not negative, where none is above ``share``, in (0, 1], of the new total.

    Those that are get cut to it; nothing else changes, and nothing more is cut than must be. Where too few parties
    have weight for anyone to keep below the share (k ≤ 1 / share), all of these get the smallest of their weights,
    which is as even as it can be.

    Raises:
        SettingsError: the share is out of range.
    """
    check_share(share)
    weights = weights.double()
    present = int((weights > 0).sum())
    if present == 0 or share == 1:
        return weights
    if present * share <= 1:
        return torch.where(weights > 0, weights[weights > 0].min(), 0.0)
    ordered = weights.sort(descending=True).values
    rests = ordered.flip(0).cumsum(dim=0).flip(0)  # of all but the first k
    for count in range(present):
        level = share * rests[count] / (1 - count * share)  # what k that are cut may have: share · (k · level + rest)
        if count * share < 1 and ordered[count] <= level * (1 + 1e-12):
            return weights.clamp(max=float(level)) if count else weights
    return weights.clamp(max=float(ordered[present - 1]))
