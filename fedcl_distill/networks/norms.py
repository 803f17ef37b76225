"""Normalisation layers shared by the networks."""

from __future__ import annotations

from torch import nn


def instance_norm(channels: int) -> nn.GroupNorm:
    """Instance norm with learned scale and shift, as group norm of one channel a group (works at 1×1 pixel too)."""
    return nn.GroupNorm(channels, channels)
