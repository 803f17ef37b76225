"""Augmentations whose parameters are drawn once and applied alike to both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, spec_of
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for


class Draw(Protocol):
    """One random draw of an augmentation's parameters, applicable any number of times."""

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Augment ``inputs`` (n, …), differentiably; sample i uses the parameters drawn for ``groups[i]``."""
        ...


class Augmentation(Protocol):
    """Draws parameters; the draw is then a pure function, so two sides can share it."""

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        """Draw parameters for ``groups`` groups of samples (classes when matching, single samples when training).

        Raises:
            SettingsError: samples of this shape cannot be augmented so.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class NoAugmentation:
    """Leaves samples as they are."""

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _unchanged

    def settings(self) -> dict[str, Any]:
        return {"augmentation": "none"}


def _unchanged(inputs: Tensor, groups: Tensor) -> Tensor:
    return inputs


def cutmix(inputs: Tensor, labels: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """Mix the samples of a batch; one box for all, whose area is uniformly distributed until it is cut at the edges.

    Args:
        inputs: float (n, channels, height, width).
        labels: float (n, classes) probabilities.
        seed: names the box and the partners.

    Returns:
        Inputs and labels, new tensors of the same shapes.
    """
    generator = generator_for(seed, "cutmix")
    partners = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    side = math.sqrt(float(torch.rand((), generator=generator)))
    rows, columns = (_stretch(size, side, generator) for size in inputs.shape[2:])
    mixed = inputs.clone()
    mixed[:, :, rows, columns] = inputs[partners][:, :, rows, columns]
    share = mixed[0, 0, rows, columns].numel() / mixed[0, 0].numel()
    return mixed, (1 - share) * labels + share * labels[partners]


def _stretch(size: int, fraction: float, generator: torch.Generator) -> slice:
    """About ``fraction`` of ``size`` positions around a random one, less what sticks out."""
    length = int(size * fraction)
    centre = int(torch.randint(size, (), generator=generator))
    start = centre - length // 2
    return slice(max(start, 0), max(min(start + length, size), 0))


@dataclass(frozen=True)
class InSequence:
    """Applies ``parts`` in order, each with parameters of its own; where DSA picks one operation, this does all.

    IDC's ``color_crop_cutout`` is three DSAs of one operation each (Kim et al. 2022, their code).
    """

    parts: tuple[Augmentation, ...]

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _Applied([part.draw(groups, sample_shape, generator) for part in self.parts])

    def settings(self) -> dict[str, Any]:
        return {"augmentation": [part.settings() for part in self.parts]}


@dataclass(frozen=True)
class _Applied:
    draws: Sequence[Draw]

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        for draw in self.draws:
            inputs = draw(inputs, groups)
        return inputs


OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
_GEOMETRIC = ("crop", "flip", "scale", "rotate")
_KINDS = {name: 2 if name in _GEOMETRIC else place for place, name in enumerate(("color", "cutout", *_GEOMETRIC))}
"""Operations of one kind are applied as one: to recolour, to cut a hole, to move pixels."""


@dataclass(frozen=True)
class SiameseAugmentation:
    """One operation a group, drawn from ``operations``; strengths as in the paper (its section 3.3 and code).

    Attributes:
        operations: names out of color, crop, cutout, flip, scale, rotate; leave out flip where a mirrored sample is
            another class (digits).
        brightness, saturation, contrast: strengths of the three steps of ``color``.
        crop, cutout: shift and hole, as fractions of height and width.
        scale: largest zoom, applied to height and width apart; the smallest is its inverse.
        rotate: largest angle, degrees.
    """

    operations: tuple[str, ...] = OPERATIONS
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    cutout: float = 0.5
    scale: float = 1.2
    rotate: float = 15.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.operations if name not in OPERATIONS]
        if unknown or not self.operations:
            raise SettingsError(f"DSA takes operations out of {', '.join(OPERATIONS)}; got {self.operations}")

    def settings(self) -> dict[str, Any]:
        names = ("brightness", "saturation", "contrast", "crop", "cutout", "scale", "rotate")
        return {
            "augmentation": "dsa",
            "dsa_operations": "_".join(self.operations),
            "dsa_strengths": {name: getattr(self, name) for name in names},
        }

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        if len(sample_shape) != 3:
            raise SettingsError("DSA augments images; feature vectors need augmentation 'none'")
        choice = torch.randint(len(self.operations), (groups,), generator=generator)
        uniform = torch.rand(8, groups, generator=generator)
        return _Parameters(
            kinds=torch.tensor([_KINDS[name] for name in self.operations])[choice],
            color_factors=self._color_factors(uniform[:3]),
            hole_centre=uniform[3:5].T.contiguous(),
            hole_size=self.cutout,
            affine=self._affine(choice, uniform[5:7], sample_shape),
        )

    def _color_factors(self, uniform: Tensor) -> Tensor:
        """float32 (groups, 3): brightness offset, saturation factor, contrast factor."""
        brightness = (uniform[0] - 0.5) * self.brightness
        return torch.stack([brightness, uniform[1] * self.saturation, uniform[2] + self.contrast], dim=1)

    def _affine(self, choice: Tensor, uniform: Tensor, sample_shape: tuple[int, ...]) -> Tensor:
        """float32 (groups, 2, 3): where each output position reads its input, in [-1, 1] coordinates (x, y)."""
        nothing = torch.zeros(len(choice))
        unchanged = (nothing + 1, nothing, nothing, nothing, nothing + 1, nothing)
        rows = torch.stack(unchanged)
        for index, name in enumerate(self.operations):
            if name in _GEOMETRIC:
                rows = torch.where(choice == index, self._rows(name, uniform, unchanged, sample_shape), rows)
        return rows.T.reshape(-1, 2, 3)

    def _rows(
        self, operation: str, uniform: Tensor, unchanged: tuple[Tensor, ...], sample_shape: tuple[int, ...]
    ) -> Tensor:
        """float32 (6, groups): the affine map of ``operation`` row by row, were every group to take it."""
        one, nothing = unchanged[:2]
        if operation == "flip":
            return torch.stack([torch.where(uniform[0] < 0.5, -one, one), *unchanged[1:]])
        if operation == "crop":
            right, down = self._shifts(uniform, sample_shape)
            return torch.stack([one, nothing, right, nothing, one, down])
        if operation == "scale":
            zoom = uniform * (self.scale - 1 / self.scale) + 1 / self.scale
            return torch.stack([zoom[0], nothing, nothing, nothing, zoom[1], nothing])
        angle = (uniform[0] - 0.5) * 2 * math.radians(self.rotate)
        cosine, sine = angle.cos(), angle.sin()
        return torch.stack([cosine, -sine, nothing, sine, cosine, nothing])

    def _shifts(self, uniform: Tensor, sample_shape: tuple[int, ...]) -> list[Tensor]:
        """float32 (groups,) each: whole-pixel shifts along x and y in [-1, 1] coordinates."""
        height, width = sample_shape[1:]
        shifts = []
        for position, size in ((uniform[0], width), (uniform[1], height)):
            most = int(size * self.crop + 0.5)
            pixels = (position * (2 * most + 1)).floor().clamp(max=2 * most) - most
            shifts.append(pixels * 2 / max(size - 1, 1))
        return shifts


@dataclass(frozen=True)
class _Parameters:
    """Parameters a group; calling it is a pure, differentiable function of the inputs."""

    kinds: Tensor
    color_factors: Tensor
    hole_centre: Tensor
    hole_size: float
    affine: Tensor

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        here = self._to(inputs.device)
        groups = groups.to(inputs.device)
        kinds = here.kinds[groups]
        operations = (here._recolor, here._cut, here._warp)
        counts = torch.bincount(kinds, minlength=len(operations)).tolist()
        if max(counts) == len(inputs):  # of one kind: there is nothing to sort
            return operations[counts.index(len(inputs))](inputs, groups) if len(inputs) else inputs
        order = kinds.argsort(stable=True)
        sorted_inputs, sorted_groups = (torch.split(one[order], counts) for one in (inputs, groups))
        parts = zip(operations, sorted_inputs, sorted_groups, strict=True)
        changed = torch.cat([operation(part, theirs) for operation, part, theirs in parts if len(part)])
        return changed[order.argsort()]

    def _to(self, device: torch.device) -> _Parameters:
        if self.kinds.device == device:
            return self
        names = ("kinds", "color_factors", "hole_centre", "affine")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def _recolor(self, inputs: Tensor, groups: Tensor) -> Tensor:
        brightness, saturation, contrast = self.color_factors[groups].to(inputs.dtype).T.reshape(3, -1, 1, 1, 1)
        inputs = inputs + brightness
        grey = inputs.mean(dim=1, keepdim=True)
        saturated: Tensor = (inputs - grey) * saturation + grey
        level = saturated.mean(dim=(1, 2, 3), keepdim=True)
        contrasted: Tensor = (saturated - level) * contrast + level
        return contrasted

    def _cut(self, inputs: Tensor, groups: Tensor) -> Tensor:
        keep = torch.ones_like(inputs[:, :1])
        inside = []
        for axis, size in ((0, inputs.shape[2]), (1, inputs.shape[3])):
            hole = int(size * self.hole_size + 0.5)
            centre = (self.hole_centre[groups, axis] * (size + (1 - hole % 2))).floor()
            offset = torch.arange(size, device=inputs.device) - (centre - hole // 2)[:, None]
            inside.append((offset >= 0) & (offset < hole))
        keep = keep.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
        return inputs * keep

    def _warp(self, inputs: Tensor, groups: Tensor) -> Tensor:
        grid = F.affine_grid(self.affine[groups].to(inputs.dtype), list(inputs.shape), align_corners=True)
        return F.grid_sample(inputs, grid, align_corners=True)


def augmentation_for(data: DataSpec | LabelledData) -> Augmentation:
    """DSA for images, without flips unless a mirrored image keeps its class; nothing for feature vectors."""
    spec = spec_of(data)
    if not spec.is_image:
        return NoAugmentation()
    if spec.allow_hflip:
        return SiameseAugmentation()
    return SiameseAugmentation(operations=tuple(name for name in OPERATIONS if name != "flip"))


__all__ = ["Augmentation", "Draw", "InSequence", "NoAugmentation", "SiameseAugmentation", "augmentation_for", "cutmix"]
