"""How a byte budget is best spent: on samples, on their resolution, or on bits a value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.parameterizations import Parameterization, Pixels, Tiles


@dataclass(frozen=True)
class Spending:
    """One way to spend bytes on a set that is distilled with values rounded as they will be stored.

    Attributes:
        bits: of each stored value.
        tiles: along each side of a stored image, so that it holds ``tiles ** 2`` samples of as much less resolution;
            1 for whole samples.
    """

    bits: int
    tiles: int = 1

    @property
    def parameterization(self) -> Parameterization:
        """How samples are stored."""
        return Pixels() if self.tiles == 1 else Tiles(self.tiles)


_TILES = 2
_FEW_BYTES = 0.5
"""Whole images of eight bits for each class: half way, by ratio, between the two budgets that were measured."""


def best_spending(total_bytes: int, real: LabelledData, *, tiles: bool = True) -> Spending:
    """Images as tiles of half the resolution in four bits; in two where a budget holds few images for each class.

    That is what docs/federated.md measured, by DM on Fashion-MNIST. At 2,000 bytes for ten classes, a quarter of a
    whole image of eight bits for each, two bits were 26 to 30 points ahead of four, because more classes got images at
    all. At 8,000 bytes, one such image for each, four and two bits were within two points, and four take half as many
    images; eight were seven points behind. Tiles were ahead of whole images by five to eight points. Feature vectors,
    of which nothing was measured, are stored as they are in eight bits.

    Args:
        total_bytes: of the encoded set.
        real: what is to be distilled; shape and classes count.
        tiles: whether images may be stored at less resolution.
    """
    if not real.is_image:
        return Spending(8)
    present = int((real.class_counts > 0).sum())
    whole = total_bytes / (max(present, 1) * math.prod(real.sample_shape))
    has_tiles = tiles and min(real.sample_shape[1:]) >= _TILES
    return Spending(2 if whole < _FEW_BYTES else 4, _TILES if has_tiles else 1)
