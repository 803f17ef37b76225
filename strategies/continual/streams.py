"""In which order and groups classes arrive, and how domains look; nothing here knows of Avalanche."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for


def class_order(classes: int, seed: int | None) -> list[int]:
    """The order in which classes arrive: as numbered for None, else a permutation drawn from ``seed``."""
    if seed is None:
        return list(range(classes))
    order: list[int] = torch.randperm(classes, generator=generator_for(seed, "class order")).tolist()
    return order


def group_sizes(classes: int, experiences: int) -> list[int]:
    """How many classes each experience brings; where they do not divide evenly, the first ones get one more.

    Raises:
        SettingsError: there are fewer classes than experiences, or no experience.
    """
    if not 1 <= experiences <= classes:
        raise SettingsError(f"there are {classes} classes, so 1 to {classes} experiences; got {experiences}")
    share, rest = divmod(classes, experiences)
    return [share + (index < rest) for index in range(experiences)]


def class_groups(classes: int, experiences: int, order_seed: int | None) -> list[list[int]]:
    """The classes of each experience; SettingsError as for :func:`group_sizes`."""
    order = iter(class_order(classes, order_seed))
    return [[next(order) for _ in range(size)] for size in group_sizes(classes, experiences)]


def rotation(data: LabelledData, index: int, experiences: int) -> LabelledData:
    """Images turned by ``180 * index / experiences`` degrees around their centre; corners are filled with black."""
    if not data.is_image:
        raise SettingsError(f"{data.name} has feature vectors, which cannot be turned; take the domain 'permutation'")
    if index == 0:
        return data
    angle = math.pi * index / experiences
    height, width = data.sample_shape[1:]
    cosine, sine = math.cos(angle), math.sin(angle)
    # In grid coordinates both sides span [-1, 1], so that sides of different length must be evened out.
    turn = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    parts = []
    for rows in torch.split(torch.arange(len(data)), 1024):
        unit = data.unit(rows)
        grid = F.affine_grid(turn.expand(len(rows), 2, 3), list(unit.shape), align_corners=False)
        parts.append(_like(F.grid_sample(unit, grid, align_corners=False), data))
    return replace(data, samples=torch.cat(parts) if parts else data.samples)


def permutation(data: LabelledData, index: int, experiences: int) -> LabelledData:
    """Pixels, or features, in another order, the same for every sample; the first experience keeps theirs."""
    if index == 0:
        return data
    generator = generator_for(0, "permutation", index)
    shape = data.sample_shape
    if data.is_image:
        order = torch.randperm(math.prod(shape[1:]), generator=generator)
        return replace(data, samples=data.samples.flatten(2)[:, :, order].reshape(data.samples.shape))
    # Features have scales of their own: what moves is the normalised value.
    moved = data.inputs()[:, torch.randperm(shape[0], generator=generator)]
    samples = data.normalisation.invert(moved)
    low, high = data.value_range
    if len(samples):
        low, high = min(low, float(samples.min())), max(high, float(samples.max()))
    return replace(data, samples=samples, spec=replace(data.spec, value_range=(low, high)))


def inversion(data: LabelledData, index: int, experiences: int) -> LabelledData:
    """Every second experience sees negatives: black for white."""
    if index % 2 == 0:
        return data
    low, high = data.value_range
    negative = 255 - data.samples if data.samples.dtype == torch.uint8 else low + high - data.samples
    return replace(data, samples=negative)


DOMAINS: dict[str, Callable[[LabelledData, int, int], LabelledData]] = {
    "rotation": rotation,
    "permutation": permutation,
    "inversion": inversion,
}


def _like(unit: Tensor, data: LabelledData) -> Tensor:
    return (unit * 255).round().to(torch.uint8) if data.samples.dtype == torch.uint8 else unit


def up_to(labels: Tensor) -> list[str]:
    """Names of classes "0", "1", … up to the largest label: an experience holds some, and their labels must stay."""
    return [str(label) for label in range(int(labels.max()) + 1)] if len(labels) else ["0"]
