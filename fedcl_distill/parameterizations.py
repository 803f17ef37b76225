"""Parameterizations: how synthetic data are stored and decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.generators import MAX_SIDE, Training, generate, invert, train, weight_shapes
from fedcl_distill.registry import Registry, build_with, describe
from fedcl_distill.seeding import generator_for
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


_MAX_BASES = 2**20
_MAX_SCALE = 16
_PAPER_BASES = 16  # for one whole sample of each of 10 classes; they take 0.4 of the storage of CIFAR-10
_SHARE, _MAX_SHARE = 0.4, 0.8


@register_parameterization("addressing")
@settings
class Addressing:
    """A sample is its row of ``addresses`` (n, bases) times ``bases`` (bases, channels, height, width), enlarged.

    Bases are ``scale`` times smaller than samples on each side and enlarged bilinearly; of feature vectors they are
    (bases, features), of full length. Storage that bases leave goes to addresses, as in the authors' code: a class
    gets its share of ``(values of the whole samples − values of the bases) / bases`` rows. Classes may have any
    counts.

    Neither array holds pixels, and the gradient of each is multiplied by the other. SGD at the rate of pixels jumps
    away from the start before it comes down; Adam at 0.03 comes down at once (DM, Fashion-MNIST).

    Attributes:
        bases: how many; None takes those that fill 0.4 of the storage (the paper's 16 for one CIFAR-10 image a class),
            but no more than half of the values of a basis, for samples would then cost as much as smaller images, and
            at least 16 where those fit.
        scale: of samples to bases, must divide height and width; 2 in the paper.

    Raises:
        SettingsError: on construction, if a setting is out of range.
    """

    bases: Annotated[int, Range(ge=1, le=_MAX_BASES)] | None = None
    scale: Annotated[int, Range(ge=1, le=_MAX_SCALE)] = 2

    name: ClassVar[str]
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset()

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        whole, (bases, *basis) = sum(counts), self._bases(counts, sample_shape)
        rows = (whole * math.prod(sample_shape) - bases * math.prod(basis)) // bases
        if rows < max(whole, bases):
            raise SettingsError(
                f"the storage of {whole} samples of shape {sample_shape} does not hold {bases} bases and as many "
                "addresses; take fewer bases, more samples, or store pixels"
            )
        return [rows * count // whole for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        bases = self._bases(counts, sample_shape)
        return {"bases": bases, "addresses": (sum(self.decoded_counts(counts, sample_shape)), bases[0])}

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        """The closest of all such combinations, in the mean square.

        With an orthonormal basis Q of all that enlarged images can be, the problem is the best approximation of the
        samples' coordinates by a matrix of low rank: their truncated singular value decomposition. Either factor takes
        the root of the singular values.
        """
        shape = self._bases(counts, tuple(samples.shape[1:]))
        frames = [torch.linalg.qr(enlarging(*sides)) for sides in zip(shape[2:], samples.shape[2:], strict=True)]
        coordinates = _along_sides([frame.T for frame, _ in frames], samples.double())
        addresses, bases = _factors(coordinates.flatten(1), shape[0], problem.seed)
        bases = _along_sides([torch.linalg.inv(triangle) for _, triangle in frames], bases.view(shape))
        return {"bases": bases.to(samples), "addresses": addresses.to(samples)}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        bases, addresses = arrays["bases"], arrays["addresses"]
        samples = (addresses @ bases.flatten(1)).view(-1, *bases.shape[1:])
        if bases.ndim == 2:
            return samples
        return enlarge(samples, self.scale * bases.shape[2], self.scale * bases.shape[3])

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"bases", "addresses"}:
            raise PayloadError(f"addressing needs two arrays 'bases' and 'addresses', got {dict(shapes)}")
        bases, addresses = shapes["bases"], shapes["addresses"]
        if len(bases) not in (2, 4) or len(addresses) != 2 or bases[0] != addresses[1] or 0 in bases:
            raise PayloadError(f"bases of shape {bases} and addresses of shape {addresses} do not fit together")
        if self.bases is not None and bases[0] != self.bases:
            raise PayloadError(f"there are {bases[0]} bases, their settings say {self.bases}")
        return (addresses[0], *bases[1:2], *(side * self.scale for side in bases[2:]))

    def _bases(self, counts: Sequence[int], sample_shape: Shape) -> Shape:
        """Shape of the array of bases."""
        if any(side % self.scale for side in sample_shape[1:]):
            raise SettingsError(f"scale {self.scale} does not divide the sides of samples of shape {sample_shape}")
        basis = (sample_shape[0], *(side // self.scale for side in sample_shape[1:]))
        size, storage = math.prod(basis), sum(counts) * math.prod(sample_shape)
        if self.bases is None:
            return (_usual_bases(size, storage), *basis)
        if self.bases > size:
            raise SettingsError(f"{self.bases} bases span no more than the {size} values of each of them")
        return (self.bases, *basis)


def _usual_bases(size: int, storage: int) -> int:
    """How many bases of ``size`` values suit ``storage`` values in all."""
    fewest = min(_PAPER_BASES, int(_MAX_SHARE * storage / size))
    wanted = min(max(int(_SHARE * storage / size), fewest), size // 2)
    # Two addresses or more for each basis: bases·size + 2·bases² values must fit.
    most = int((math.sqrt(size**2 + 8 * storage) - size) / 4)
    return max(1, min(wanted, most))


def _factors(matrix: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Factors (rows, rank) and (rank, columns) whose product comes closest to ``matrix``, of equal weight.

    A matrix of lower rank (few distinct real samples) leaves factors over. Were both of a pair 0, each would keep the
    other's gradient at 0 for ever: the left ones are noise instead, and the right ones 0.
    """
    wide = matrix.shape[1] > matrix.shape[0]
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
    squares, vectors = squares.flip(0)[:rank].clamp(min=0), vectors.flip(1)[:, :rank]
    used = int((squares > squares[0] * 1e-12).sum())
    roots, vectors = squares[:used] ** 0.25, vectors[:, :used]
    left = vectors * roots if wide else matrix @ vectors / roots
    right = (vectors.T @ matrix) / roots[:, None] if wide else roots[:, None] * vectors.T
    noise = torch.randn(len(left), rank - used, generator=generator_for(seed, "superfluous addresses"))
    size = left.square().mean().sqrt() if used else left.new_tensor(1.0)
    return torch.cat([left, size * noise], dim=1), F.pad(right, (0, 0, 0, rank - used))


def _along_sides(matrices: Sequence[Tensor], images: Tensor) -> Tensor:
    """Each matrix applied along its side (height, width) of ``images`` (n, channels, height, width)."""
    if not matrices:
        return images
    rows, columns = matrices
    return rows @ images @ columns.T


_LATENT, _EMBEDDING = 64, 16


@register_parameterization("generator")
@settings
class GeneratorLatents:
    """A sample is a row of ``codes`` (n, latent + embedding); a generator's weights, the other arrays, decode it.

    The generator is trained adversarially on the real data, then the first samples are inverted to codes, and these
    alone are optimised (IT-GAN; its authors invert a BigGAN). A code holds its class: the embedding of the class is
    where the end of the code starts from, and it is learned like the rest.

    The weights are frozen, but stored and sent with the codes: 58,592 values for 28×28 grey images and the default
    settings, as many as 75 such images, of which 41,472 map the code to the coarsest stage. It pays where a set has
    many samples, or where several sets share a receiver that already holds the weights.

    Attributes:
        latent: length of the part of a code that is normal noise in training; None takes 64, or half the values of a
            small sample.
        embedding: length of the part that names the class; None takes 16, or a quarter of the values of a small sample.
        width: channels of the generator's coarse stages.
        samples_per_image: samples for each whole one; their codes must not take more values than it does.
        generator_steps: adversarial training steps; fewer where a budget in seconds ends first.
        inversion_steps: gradient steps on the codes towards the first samples.

    Raises:
        SettingsError: on construction, if a setting is out of range.
    """

    latent: Annotated[int, Range(ge=1, le=4096)] | None = None
    embedding: Annotated[int, Range(ge=1, le=4096)] | None = None
    width: Annotated[int, Range(ge=1, le=256)] = 32
    samples_per_image: Annotated[int, Range(ge=1, le=4096)] = 1
    generator_steps: Annotated[int, Range(ge=1, le=10**7)] = 1000
    inversion_steps: Annotated[int, Range(ge=0, le=10**6)] = 100

    name: ClassVar[str]
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    # All but the codes: the weights of a generator of the largest images have every name there is.
    frozen: ClassVar[frozenset[str]] = frozenset(weight_shapes(1, 1, (1, MAX_SIDE, MAX_SIDE)))

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        if len(sample_shape) != 3:
            raise SettingsError("the generator makes images; store feature vectors as pixels or by addressing")
        if max(sample_shape[1:]) > MAX_SIDE:
            raise SettingsError(f"the generator makes images of at most {MAX_SIDE} pixels a side, not {sample_shape}")
        code, values = sum(self._lengths(sample_shape)), math.prod(sample_shape)
        if self.samples_per_image * code > values:
            raise SettingsError(
                f"{self.samples_per_image} codes of length {code} take more than the {values} values of a sample"
            )
        return [count * self.samples_per_image for count in counts]

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        code = sum(self._lengths(sample_shape))
        return {
            "codes": (sum(self.decoded_counts(counts, sample_shape)), code),
            **weight_shapes(code, self.width, sample_shape),
        }

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        """Train the generator on the real data, then invert ``samples``; both soon end where there is no time left."""
        shape = tuple(samples.shape[1:])
        shapes = self.shapes(counts, shape)
        codes = shapes.pop("codes")
        trained = train(problem, shapes, self._lengths(shape)[1], Training(self.generator_steps))
        repeats = torch.tensor(self.decoded_counts(counts, shape))
        labels = torch.repeat_interleave(torch.arange(len(counts)), repeats).to(problem.device)
        found = invert(trained, samples.to(problem.device), labels, problem, steps=self.inversion_steps)
        assert tuple(found.shape) == codes
        return {"codes": found, **trained.weights}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return generate(arrays, arrays["codes"])

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        codes, mean = shapes.get("codes", ()), shapes.get("mean", ())
        if len(codes) != 2 or len(mean) != 3 or 0 in mean or max(mean[1:]) > MAX_SIDE:
            raise PayloadError(f"codes of shape {codes} and a mean image of shape {mean} are none of a generator")
        if codes[1] != sum(self._lengths(mean)):
            raise PayloadError(f"codes have length {codes[1]}, their settings say {sum(self._lengths(mean))}")
        expected = {"codes": codes, **weight_shapes(codes[1], self.width, mean)}
        if dict(shapes) != expected:
            raise PayloadError(f"weights have shapes {dict(shapes)}, their settings say {expected}")
        return (codes[0], *mean)

    def _lengths(self, sample_shape: Shape) -> tuple[int, int]:
        """Lengths of the two parts of a code."""
        values = math.prod(sample_shape)
        latent = max(1, min(_LATENT, values // 2)) if self.latent is None else self.latent
        embedding = max(1, min(_EMBEDDING, values // 4)) if self.embedding is None else self.embedding
        return latent, embedding


__all__ = [
    "PARAMETERIZATIONS",
    "Addressing",
    "Arrays",
    "FixedPixels",
    "GeneratorLatents",
    "LowRank",
    "Parameterization",
    "Pixels",
    "Setting",
    "Shape",
    "Tiles",
    "build_parameterization",
    "register_parameterization",
    "stored_settings",
]
