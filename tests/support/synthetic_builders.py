"""Small synthetic sets of every kind, and payloads taken apart and put together by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.data.labelled import Normalisation
from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations import Arrays, Pixels, Setting, Shape
from fedcl_distill.synthetic import SyntheticSet
from simulations.dev.fuzz.fuzzer import KEY, put_together, take_apart, with_header

__all__ = ["KEY", "Scaled", "make_set", "put_together", "take_apart", "with_header"]


def make_set(
    shape: tuple[int, ...] = (4, 1, 3, 5),
    *,
    classes: int = 2,
    labels: Tensor | None = None,
    pixels: Tensor | None = None,
    seed: int = 0,
    **changes: Any,
) -> SyntheticSet:
    """``shape`` (n, …) normal values; labels 0, 1, …, 0, 1, … unless given."""
    generator = torch.Generator().manual_seed(seed)
    if pixels is None:
        pixels = torch.randn(*shape, generator=generator)
    if labels is None:
        labels = torch.arange(len(pixels)) % classes
    channels = pixels.shape[1]
    settings: dict[str, Any] = {
        "class_names": tuple(str(label) for label in range(classes)),
        "normalisation": Normalisation((0.1307,) * channels, (0.3081,) * channels),
        "provenance": {"method": "test", "seed": seed, "nested": {"counts": [1, 2], "none": None}},
    }
    return SyntheticSet({"pixels": pixels}, Pixels(), labels, **(settings | changes))


@dataclass(frozen=True)
class Scaled:
    """A parameterization of two arrays and a setting: samples are ``base`` by ``gain`` by ``factor``."""

    factor: float = 1.0
    name: ClassVar[str] = "scaled"
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset({"gain"})

    def settings(self) -> dict[str, Setting]:
        return {"factor": self.factor}

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        return list(counts)

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        return {"base": (sum(counts), *sample_shape), "gain": (sum(counts),)}

    def start(
        self, samples: Tensor, counts: Sequence[int] | None = None, problem: SetupContext | None = None
    ) -> Arrays:
        return {"base": samples / self.factor, "gain": torch.ones(len(samples))}

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        return arrays["base"] * arrays["gain"].view(-1, *[1] * (arrays["base"].ndim - 1)) * self.factor

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        if set(shapes) != {"base", "gain"} or shapes["gain"] != shapes["base"][:1]:
            raise PayloadError(f"scaled needs base and gain, got {dict(shapes)}")
        return shapes["base"]
