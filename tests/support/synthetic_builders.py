"""Small synthetic sets of every kind, and payloads taken apart and put together by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations import Arrays, Pixels, Shape
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
        "sample_shape": tuple(pixels.shape[1:]),
        "class_names": tuple(str(label) for label in range(classes)),
        "normalisation": Normalisation((0.1307,) * channels, (0.3081,) * channels),
    }
    traits = {field.name for field in fields(DataSpec)}
    spec = DataSpec(**settings | {name: value for name, value in changes.items() if name in traits})
    provenance = {"method": "test", "seed": seed, "nested": {"counts": [1, 2], "none": None}}
    others = {name: value for name, value in changes.items() if name not in traits}
    return SyntheticSet(
        **{"arrays": {"pixels": pixels}, "parameterization": Pixels(), "provenance": provenance, **others},
        labels=labels,
        spec=spec,
    )


@dataclass(frozen=True)
class Scaled:
    """A parameterization of two arrays and a setting: samples are ``base`` by ``gain`` by ``factor``."""

    factor: float = 1.0
    name: ClassVar[str] = "scaled"
    pixel_arrays: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[frozenset[str]] = frozenset({"gain"})

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
