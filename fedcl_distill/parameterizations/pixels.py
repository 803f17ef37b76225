"""One stored value for every value of every sample: the parameterization of most papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations.base import Arrays, Setting, Shape


@dataclass(frozen=True)
class Pixels:
    """Samples stored as they are, in one array ``pixels`` (n, channels, height, width) or (n, features)."""

    name: ClassVar[str] = "pixels"

    def settings(self) -> dict[str, Setting]:
        return {}

    def start(self, samples: Tensor) -> Arrays:
        return {"pixels": samples.clone()}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return arrays["pixels"]

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"pixels"} or len(shapes["pixels"]) not in (2, 4):
            raise PayloadError(f"pixels need one array 'pixels' of 2 or 4 dimensions, got {dict(shapes)}")
        return shapes["pixels"]
