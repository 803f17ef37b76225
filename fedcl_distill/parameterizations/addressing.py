"""Samples as combinations of bases that all classes share (Deng and Russakovsky 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations.base import Arrays, Shape, enlarge, enlarging, register_parameterization
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Range, settings

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
