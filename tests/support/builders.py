"""Small data that tests build."""

from __future__ import annotations

import torch

from fedcl_distill.data import LabelledData


def blobs(
    shape: tuple[int, ...] = (1, 8, 8), classes: int = 3, per_class: int = 20, seed: int = 0, **traits: object
) -> LabelledData:
    """uint8 images (or float features) of which each class has its own random mean: easy to learn."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(classes).repeat_interleave(per_class)
    values = means[labels] + 0.1 * torch.randn(len(labels), *shape, generator=generator)
    samples = (values.clamp(0, 1) * 255).round().to(torch.uint8) if len(shape) == 3 else values
    return LabelledData.from_tensors(samples, labels, name="blobs", **traits)  # type: ignore[arg-type]
