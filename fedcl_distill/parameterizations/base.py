"""What a parameterization is, and samples stored as values of a grid: pixels, tiles of less resolution, low rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.registry import Registry, build_with, describe
from fedcl_distill.settings import Range, settings


def enlarge(images: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, height, width): ``images`` interpolated bilinearly, pixels being areas (no aligned corners)."""
    if images.shape[2:] == (height, width):
        return images
    if len(images) == 0:  # which torch does not interpolate
        return images.new_zeros(0, images.shape[1], height, width)
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)


def enlarging(small: int, large: int) -> Tensor:
    """float64 (large, small): :func:`enlarge` along one axis, as a matrix. Along two, it does one after the other."""
    rows = torch.eye(small, dtype=torch.float64)[None]
    return F.interpolate(rows, size=large, mode="linear", align_corners=False)[0].T.contiguous()


def shrink(images: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, height, width): what :func:`enlarge` brings closest to ``images``, in the mean square."""
    rows = torch.linalg.pinv(enlarging(height, images.shape[2]))
    columns = torch.linalg.pinv(enlarging(width, images.shape[3]))
    small: Tensor = rows.to(images) @ images @ columns.to(images).T
    return small


Shape = tuple[int, ...]
Arrays = dict[str, Tensor]
Setting = str | int | float | bool | None


@runtime_checkable
class Parameterization(Protocol):
    """What is stored (named float32 arrays) and its differentiable decoding to network inputs.

    Stored arrays live in the space of network inputs (normalised values), so that learning rates of the literature
    apply as they are; :class:`~fedcl_distill.synthetic.SyntheticSet` maps decoded samples back to unit values.

    Parameterizations are dataclasses whose fields are JSON scalars: these, and the registered name, are what a payload
    says of them. Those that differ from their defaults are stored; so defaults are part of the file format.

    The size of a set is always counted in whole samples stored as pixels: for a size of ``counts`` a class, no
    parameterization stores more values than as many pixels, labels and what :attr:`frozen` names left aside. From the
    same storage it may decode more samples.

    Attributes:
        name: the registered one.
        pixel_arrays: arrays that hold pixel values with channels as their second dimension, so that they can be
            clamped to the value range.
        frozen: arrays that decoding needs but optimisation leaves alone.

    Two more are optional: ``separable``, True where every row of the arrays with values decodes to samples of its own,
    so that sets can be cut to fit into bytes; and a method ``settled(arrays)``, which gives arrays that decode to the
    same samples in fewer bytes.
    """

    name: ClassVar[str]
    pixel_arrays: ClassVar[frozenset[str]]
    frozen: ClassVar[frozenset[str]]

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        """Samples of each class that storage for ``counts`` whole samples decodes to; 0 stays 0.

        Raises:
            SettingsError: samples of this shape cannot be stored so, or so few whole samples do not suffice.
        """
        ...

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        """Shapes of the arrays that are stored for ``counts`` whole samples: what :meth:`start` returns."""
        ...

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        """Arrays that decode as closely as possible to ``samples``.

        Args:
            samples: float32 network inputs, as many of each class as :meth:`decoded_counts` says, in order of class.
            counts: the size, in whole samples of each class.
            problem: the real data and so on, for parameterizations that must learn how to decode.
        """
        ...

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Samples, float32 (n, channels, height, width) or (n, features), differentiable in ``arrays``."""
        ...

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Shape that :meth:`decode` will give for arrays of these shapes, computed without any allocation.

        Raises:
            PayloadError: arrays are missing, superfluous or of shapes that do not fit together.
        """
        ...


PARAMETERIZATIONS: Registry[Parameterization] = Registry(
    "parameterization", "fedcl_distill.parameterizations", Parameterization
)
register_parameterization = PARAMETERIZATIONS.register


def build_parameterization(name: str, settings: Mapping[str, Setting]) -> Parameterization:
    """Rebuild the parameterization that a file or message names.

    Raises:
        PayloadError: the name or a setting is unknown.
    """
    try:
        entry = PARAMETERIZATIONS[name]
        return build_with(f"parameterization {entry.name!r}", entry.build, settings)
    except SettingsError as error:
        raise PayloadError(str(error)) from error


def stored_settings(parameterization: Parameterization) -> dict[str, Setting]:
    """Settings that are not the defaults of the class: defaults are part of the file format, and cost no bytes."""
    plain = describe(parameterization)
    return {} if isinstance(plain, str) else {name: value for name, value in plain.items() if name != "name"}


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
