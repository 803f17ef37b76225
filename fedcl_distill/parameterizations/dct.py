"""Images stored as the cosine coefficients of their low frequencies, in whole steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations.base import Arrays, Shape, register_parameterization
from fedcl_distill.settings import Count, Positive, settings

_COEFFICIENTS, _CANVAS = "coefficients", "canvas"
_BASIS_BITS = 10  # of a basis function along one axis
_MAX_SIDE = 4096


@register_parameterization("dct")
@settings
class DCT:
    """Coefficients of the discrete cosine transform (Ahmed et al. 1974), of the whole image or of square blocks.

    The array ``coefficients`` (n, blocks, k) holds, for each block, the lowest ``frequencies`` of each channel in order
    of frequency. Images of three channels are stored as luma and two differences of colour (YCoCg), of which a quarter
    of the frequencies are kept each: half the resolution. The array ``canvas`` (0, channels, height, width) has no
    values; its shape says what images are like.

    Decoding rounds coefficients to whole numbers, and gradients pass as if it had not. It adds up whole numbers
    below 2**53 times whole numbers, which double precision does exactly in any order: decoded samples are equal to the
    last bit on every machine. Few whole numbers, most of them 0, are what the payload's coder is good at.

    Attributes:
        frequencies: kept of each channel of each block, those of the smallest radius; no more than a block has.
        step: between neighbouring values of a coefficient, in network inputs (the transform is orthonormal).
        block: side of the blocks, 8 as in JPEG; None transforms whole images.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    frequencies: Count = 36
    step: Positive = 0.5
    block: Count | None = None

    name: ClassVar[str]
    separable: ClassVar[bool] = True
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset({_CANVAS})

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        if len(sample_shape) != 3:
            raise SettingsError("cosines are of images; store feature vectors as pixels or by addressing")
        each = math.prod(sample_shape) // math.prod(self._stored_shape(sample_shape))
        if each == 0:
            raise SettingsError(f"coefficients of images of shape {sample_shape} take more values than their pixels")
        return [count * each for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        samples = sum(self.decoded_counts(counts, sample_shape))
        return {_COEFFICIENTS: (samples, *self._stored_shape(sample_shape)), _CANVAS: (0, *sample_shape)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        return self.transform(samples)

    def transform(self, samples: Tensor) -> Arrays:
        """Arrays whose coefficients, not yet rounded, are those of ``samples`` (n, channels, height, width)."""
        height, width = samples.shape[2:]
        blocks = self._cut(_to_luma(samples.double()))
        kept = []
        for channel in range(samples.shape[1]):
            basis = _basis(*self._block(height, width), self._kept(channel, samples.shape[1], height, width))
            basis = basis.to(samples.device) / 4**_BASIS_BITS
            kept.append(blocks[:, :, channel].flatten(2) @ basis.T / self.step)
        return {_COEFFICIENTS: torch.cat(kept, dim=2).float(), _CANVAS: samples.new_zeros(0, *samples.shape[1:])}

    def settled(self, arrays: Mapping[str, Tensor]) -> Arrays:
        """Arrays of whole numbers that decode to the same samples as ``arrays``."""
        return {**arrays, _COEFFICIENTS: arrays[_COEFFICIENTS].round() + 0.0}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        stored = arrays[_COEFFICIENTS]
        exact = (stored.cpu() if stored.device.type == "mps" else stored).double()
        whole = exact + (exact.round() - exact).detach()
        channels, height, width = arrays[_CANVAS].shape[1:]
        sizes = [self._kept(channel, channels, height, width) for channel in range(channels)]
        planes = []
        for size, part in zip(sizes, torch.split(whole, sizes, dim=2), strict=True):
            planes.append(part @ _basis(*self._block(height, width), size).to(whole.device))
        joined = self._join(torch.stack(planes, dim=2), height, width)
        samples: Tensor = _from_luma(joined) * (self.step / 4**_BASIS_BITS)
        return samples.float().to(stored.device)

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        kinds = {name: len(shape) for name, shape in shapes.items()}
        if kinds != {_COEFFICIENTS: 3, _CANVAS: 4}:
            raise PayloadError(f"cosines need 'coefficients' of 3 dimensions and 'canvas' of 4, got {dict(shapes)}")
        none, *sample_shape = shapes[_CANVAS]
        if none or not 1 <= min(sample_shape) <= max(sample_shape) <= _MAX_SIDE:
            raise PayloadError(f"a canvas must have no values and sides up to {_MAX_SIDE}, got {shapes[_CANVAS]}")
        samples, *stored = shapes[_COEFFICIENTS]
        if tuple(stored) != self._stored_shape(tuple(sample_shape)):
            raise PayloadError(f"coefficients of shape {tuple(stored)} do not fit images of shape {sample_shape}")
        return (samples, *sample_shape)

    def _stored_shape(self, sample_shape: Shape) -> Shape:
        channels, height, width = sample_shape
        rows, columns = self._block(height, width)
        values = sum(self._kept(channel, channels, height, width) for channel in range(channels))
        return (math.ceil(height / rows) * math.ceil(width / columns), values)

    def _kept(self, channel: int, channels: int, height: int, width: int) -> int:
        kept = min(self.frequencies, math.prod(self._block(height, width)))
        return max(kept // 4, 1) if channels == 3 and channel else kept

    def _block(self, height: int, width: int) -> tuple[int, int]:
        return (height, width) if self.block is None else (self.block, self.block)

    def _cut(self, images: Tensor) -> Tensor:
        """(n, blocks, channels, rows, columns): blocks row by row; the last pixel goes on where a block is not full."""
        height, width = images.shape[2:]
        rows, columns = self._block(height, width)
        more = (0, -width % columns, 0, -height % rows)
        padded = torch.nn.functional.pad(images, more, mode="replicate") if any(more) else images
        parts = padded.unfold(2, rows, rows).unfold(3, columns, columns)
        return parts.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    def _join(self, blocks: Tensor, height: int, width: int) -> Tensor:
        """The inverse of :meth:`_cut`, of blocks (n, blocks, channels, rows · columns)."""
        rows, columns = self._block(height, width)
        down, across = math.ceil(height / rows), math.ceil(width / columns)
        grid = blocks.reshape(len(blocks), down, across, -1, rows, columns).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(len(blocks), -1, down * rows, across * columns)[:, :, :height, :width]


@cache
def _basis(rows: int, columns: int, count: int) -> Tensor:
    """float64 (count, rows · columns), whole numbers: the lowest ``count`` frequencies, times 4**10."""
    down, across = _axis(rows), _axis(columns)
    order = sorted(
        ((u, v) for u in range(rows) for v in range(columns)),
        key=lambda one: ((one[0] * columns) ** 2 + (one[1] * rows) ** 2, one),
    )
    functions = [np.outer(down[u], across[v]).reshape(-1) for u, v in order[:count]]
    return torch.from_numpy(np.array(functions, np.float64))


def _axis(size: int) -> npt.NDArray[np.float64]:
    """(size, size), whole numbers: the orthonormal cosines of one axis, times 2**10."""
    frequency, place = np.ogrid[:size, :size]
    scale = np.sqrt(np.where(frequency == 0, 1, 2) / size) * 2**_BASIS_BITS
    whole: npt.NDArray[np.float64] = np.rint(scale * np.cos(np.pi * (2 * place + 1) * frequency / (2 * size)))
    return whole


def _to_luma(images: Tensor) -> Tensor:
    """Red, green and blue as luma and differences; other images as they are."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    return torch.stack([(red + 2 * green + blue) / 4, (red - blue) / 2, (2 * green - red - blue) / 4], dim=1)


def _from_luma(images: Tensor) -> Tensor:
    """The inverse of :func:`_to_luma`."""
    if images.shape[1] != 3:
        return images
    luma, orange, green = images.unbind(1)
    return torch.stack([luma + orange - green, luma + green, luma - orange - green], dim=1)
