"""Samples stored as values of a grid: pixels, tiles of less resolution, products of low rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations.base import Arrays, Shape, enlarge, register_parameterization, shrink
from fedcl_distill.settings import Range, settings


@register_parameterization("pixels")
@settings
class Pixels:
    """Samples stored as they are, in one array ``pixels`` (n, channels, height, width) or (n, features)."""

    name: ClassVar[str]
    separable: ClassVar[bool] = True
    pixel_arrays: ClassVar[frozenset[str]] = frozenset({"pixels"})
    frozen: ClassVar[frozenset[str]] = frozenset()

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        return list(counts)

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        return {"pixels": (sum(counts), *sample_shape)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        return {"pixels": samples.clone()}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return arrays["pixels"]

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"pixels"} or len(shapes["pixels"]) not in (2, 4):
            raise PayloadError(f"pixels need one array 'pixels' of 2 or 4 dimensions, got {dict(shapes)}")
        return shapes["pixels"]


_MAX_FACTOR = 16


@register_parameterization("tiles")
@settings
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

    factor: Annotated[int, Range(ge=1, le=_MAX_FACTOR)] = 2

    name: ClassVar[str]
    separable: ClassVar[bool] = True
    pixel_arrays: ClassVar[frozenset[str]] = frozenset({"pixels"})
    frozen: ClassVar[frozenset[str]] = frozenset()

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        if len(sample_shape) != 3:
            raise SettingsError("tiles are parts of images; store feature vectors as pixels or by addressing")
        if self.factor > min(sample_shape[1:]):
            raise SettingsError(f"images of shape {sample_shape} have no {self.factor} tiles along each side")
        return [count * self.factor**2 for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        return {"pixels": (sum(counts), *sample_shape)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
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


_MAX_RANK = 4096


@register_parameterization("low-rank")
@settings
class LowRank:
    """A channel is ``left`` (height, rank) by ``right`` (rank, width): the arrays have (n, channels) in front.

    A sample takes channels·rank·(height + width) values, so that the storage of a whole sample holds
    height·width / (rank·(height + width)) of them, rounded down. Both factors are learned, as factors of addresses and
    bases are in Deng and Russakovsky (2022); here, nothing is shared between samples. As there, Adam at 0.03 descends
    more evenly than SGD at the rate of pixels.

    Attributes:
        rank: of each channel; None takes a quarter of the shorter side, at which square images decode to two samples
            for each whole one.

    Raises:
        SettingsError: on construction, if the rank is out of range.
    """

    rank: Annotated[int, Range(ge=1, le=_MAX_RANK)] | None = None

    name: ClassVar[str]
    separable: ClassVar[bool] = True
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset()

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        if len(sample_shape) != 3:
            raise SettingsError("a feature vector is no matrix to factor; store feature vectors by addressing")
        _, height, width = sample_shape
        rank = self._rank(sample_shape)
        each = height * width // (rank * (height + width))
        if each == 0:
            raise SettingsError(
                f"factors of rank {rank} take more values than the {height}×{width} pixels of an image; take a rank of "
                f"at most {height * width // (height + width)}, or store pixels"
            )
        return [count * each for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        samples, rank = sum(self.decoded_counts(counts, sample_shape)), self._rank(sample_shape)
        channels, height, width = sample_shape
        return {"left": (samples, channels, height, rank), "right": (samples, channels, rank, width)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        """The truncated singular value decomposition, the closest there is (Eckart and Young 1936).

        Either factor takes the root of the singular values, so that one learning rate suits both.
        """
        rank = self._rank(tuple(samples.shape[1:]))
        left, values, right = torch.linalg.svd(samples.double(), full_matrices=False)
        roots = values[..., :rank].sqrt()
        return {
            "left": (left[..., :rank] * roots[..., None, :]).to(samples),
            "right": (roots[..., None] * right[..., :rank, :]).to(samples),
        }

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return arrays["left"] @ arrays["right"]

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"left", "right"} or any(len(shape) != 4 for shape in shapes.values()):
            raise PayloadError(f"low rank needs two arrays 'left' and 'right' of 4 dimensions, got {dict(shapes)}")
        left, right = shapes["left"], shapes["right"]
        if left[:2] != right[:2] or left[3] != right[2] or left[3] not in range(1, _MAX_RANK + 1):
            raise PayloadError(f"factors of shapes {left} and {right} do not fit together")
        if self.rank is not None and left[3] != self.rank:
            raise PayloadError(f"factors have rank {left[3]}, their settings say {self.rank}")
        return (*left[:3], right[3])

    def _rank(self, sample_shape: Shape) -> int:
        return max(1, min(sample_shape[1:]) // 4) if self.rank is None else self.rank


@register_parameterization("fixed-pixels")
@settings
class FixedPixels(Pixels):
    """Pixels that optimisation leaves alone (Bohdal et al. 2020 learn the labels of given samples)."""

    name: ClassVar[str]
    frozen: ClassVar[frozenset[str]] = frozenset({"pixels"})
