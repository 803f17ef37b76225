"""One stored value for every value of every sample: the parameterization of most papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations.base import Arrays, Setting, Shape
from fedcl_distill.problem import Problem


@dataclass(frozen=True)
class Pixels:
    """Samples stored as they are, in one array ``pixels`` (n, channels, height, width) or (n, features)."""

    name: ClassVar[str] = "pixels"
    pixel_arrays: ClassVar[frozenset[str]] = frozenset({"pixels"})
    frozen: ClassVar[frozenset[str]] = frozenset()

    def settings(self) -> dict[str, Setting]:
        return {}

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        return list(counts)

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        return {"pixels": (sum(counts), *sample_shape)}

    def start(self, samples: Tensor, counts: Sequence[int], problem: Problem) -> Arrays:
        return {"pixels": samples.clone()}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return arrays["pixels"]

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"pixels"} or len(shapes["pixels"]) not in (2, 4):
            raise PayloadError(f"pixels need one array 'pixels' of 2 or 4 dimensions, got {dict(shapes)}")
        return shapes["pixels"]
