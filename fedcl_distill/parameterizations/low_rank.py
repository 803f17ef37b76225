"""Each channel of an image as the product of a tall and a wide matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations.base import Arrays, Setting, Shape
from fedcl_distill.parameterizations.checks import check_integer
from fedcl_distill.problem import Problem

_MAX_RANK = 4096


@dataclass(frozen=True)
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

    rank: int | None = None

    name: ClassVar[str] = "low-rank"
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.rank is not None:
            check_integer("low-rank: rank", self.rank, 1, _MAX_RANK)

    def settings(self) -> dict[str, Setting]:
        return {"rank": self.rank}

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

    def start(self, samples: Tensor, counts: Sequence[int], problem: Problem) -> Arrays:
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
