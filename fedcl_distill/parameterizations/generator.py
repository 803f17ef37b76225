"""Samples as codes of a small conditional generator that is trained on the real data (Zhao and Bilen 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.generators import MAX_SIDE, Training, generate, invert, train, weight_shapes
from fedcl_distill.parameterizations.base import Arrays, Shape, register_parameterization
from fedcl_distill.settings import Range, settings

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
