"""Several smaller images in each stored one: the multi-formation of IDC (Kim et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations.base import Arrays, Setting, Shape
from fedcl_distill.parameterizations.checks import check_integer
from fedcl_distill.parameterizations.resampling import enlarge, shrink
from fedcl_distill.problem import Problem

_MAX_FACTOR = 16


@dataclass(frozen=True)
class Tiles:
    """Each stored image is a grid of ``factor`` by ``factor`` tiles; each tile, enlarged bilinearly, is a sample.

    The array ``pixels`` (n, channels, height, width) is that of as many whole images, and the ``factor**2`` samples
    of an image follow each other, row by row of its grid. Where the factor does not divide a side, tiles differ by
    one pixel, as they do when IDC fills its images; its decoder instead pads and then cuts equal tiles, which would
    leave some pixels of a tile to its neighbour.

    Attributes:
        factor: tiles along each side; 2 in the paper (3 for its larger images), at most 16.

    Raises:
        SettingsError: on construction, if the factor is out of range.
    """

    factor: int = 2

    name: ClassVar[str] = "tiles"
    pixel_arrays: ClassVar[frozenset[str]] = frozenset({"pixels"})
    frozen: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_integer("tiles: factor", self.factor, 1, _MAX_FACTOR)

    def settings(self) -> dict[str, Setting]:
        return {"factor": self.factor}

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        if len(sample_shape) != 3:
            raise SettingsError("tiles are parts of images; store feature vectors as pixels or by addressing")
        if self.factor > min(sample_shape[1:]):
            raise SettingsError(f"images of shape {sample_shape} have no {self.factor} tiles along each side")
        return [count * self.factor**2 for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        return {"pixels": (sum(counts), *sample_shape)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: Problem) -> Arrays:
        pixels = samples.new_zeros(sum(counts), *samples.shape[1:])
        for position, (rows, columns) in enumerate(self._grid(samples.shape[2:])):
            parts = samples[position :: self.factor**2]
            pixels[:, :, rows, columns] = shrink(parts, rows.stop - rows.start, columns.stop - columns.start)
        return {"pixels": pixels}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        pixels = arrays["pixels"]
        height, width = pixels.shape[2:]
        tiles = [enlarge(pixels[:, :, rows, columns], height, width) for rows, columns in self._grid((height, width))]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"pixels"} or len(shapes["pixels"]) != 4:
            raise PayloadError(f"tiles need one array 'pixels' of 4 dimensions, got {dict(shapes)}")
        count, channels, height, width = shapes["pixels"]
        if self.factor > min(height, width):
            raise PayloadError(f"images of {height}×{width} pixels have no {self.factor} tiles along each side")
        return (count * self.factor**2, channels, height, width)

    def _grid(self, size: Sequence[int]) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each tile."""
        for rows in self._cuts(size[0]):
            for columns in self._cuts(size[1]):
                yield rows, columns

    def _cuts(self, side: int) -> list[slice]:
        edges = [part * side // self.factor for part in range(self.factor + 1)]
        return [slice(start, end) for start, end in pairwise(edges)]
