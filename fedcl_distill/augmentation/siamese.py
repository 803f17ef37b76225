"""Differentiable Siamese augmentation, DSA (Zhao and Bilen 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation.base import Draw
from fedcl_distill.errors import SettingsError

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
_GEOMETRIC = ("crop", "flip", "scale", "rotate")


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
        chosen = {name: choice == index for index, name in enumerate(self.operations)}
        uniform = torch.rand(8, groups, generator=generator)
        return _Parameters(
            color=_mask(chosen, ("color",), groups),
            color_factors=self._color_factors(uniform[:3]),
            cutout=_mask(chosen, ("cutout",), groups),
            hole_centre=uniform[3:5].T.contiguous(),
            hole_size=self.cutout,
            geometric=_mask(chosen, _GEOMETRIC, groups),
            affine=self._affine(chosen, uniform[5:7], sample_shape),
        )

    def _color_factors(self, uniform: Tensor) -> Tensor:
        """float32 (groups, 3): brightness offset, saturation factor, contrast factor."""
        brightness = (uniform[0] - 0.5) * self.brightness
        return torch.stack([brightness, uniform[1] * self.saturation, uniform[2] + self.contrast], dim=1)

    def _affine(self, chosen: dict[str, Tensor], uniform: Tensor, sample_shape: tuple[int, ...]) -> Tensor:
        """float32 (groups, 2, 3): where each output position reads its input, in [-1, 1] coordinates (x, y)."""
        groups = uniform.shape[1]
        affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(groups, 1, 1)
        if "flip" in chosen:
            affine[chosen["flip"] & (uniform[0] < 0.5), 0, 0] = -1.0
        if "crop" in chosen:
            affine[chosen["crop"], :, 2] = self._shifts(uniform, sample_shape)[chosen["crop"]]
        if "scale" in chosen:
            zoom = uniform * (self.scale - 1 / self.scale) + 1 / self.scale
            affine[chosen["scale"], 0, 0] = zoom[0, chosen["scale"]]
            affine[chosen["scale"], 1, 1] = zoom[1, chosen["scale"]]
        if "rotate" in chosen:
            angle = (uniform[0, chosen["rotate"]] - 0.5) * 2 * math.radians(self.rotate)
            turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)
            affine[chosen["rotate"], :, :2] = turn
        return affine

    def _shifts(self, uniform: Tensor, sample_shape: tuple[int, ...]) -> Tensor:
        """float32 (groups, 2): whole-pixel shifts along (x, y) in [-1, 1] coordinates."""
        height, width = sample_shape[1:]
        shifts = []
        for position, size in ((uniform[0], width), (uniform[1], height)):
            most = int(size * self.crop + 0.5)
            pixels = (position * (2 * most + 1)).floor().clamp(max=2 * most) - most
            shifts.append(pixels * 2 / max(size - 1, 1))
        return torch.stack(shifts, dim=1)


@dataclass(frozen=True)
class _Parameters:
    """Parameters a group; calling it is a pure, differentiable function of the inputs."""

    color: Tensor
    color_factors: Tensor
    cutout: Tensor
    hole_centre: Tensor
    hole_size: float
    geometric: Tensor
    affine: Tensor

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        here = self._to(inputs.device)
        groups = groups.to(inputs.device)
        for mask, operation in ((here.color, here._recolor), (here.cutout, here._cut), (here.geometric, here._warp)):
            rows = mask[groups].nonzero().flatten()
            if len(rows):
                inputs = inputs.index_copy(0, rows, operation(inputs[rows], groups[rows]))
        return inputs

    def _to(self, device: torch.device) -> _Parameters:
        if self.color.device == device:
            return self
        names = ("color", "color_factors", "cutout", "hole_centre", "geometric", "affine")
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


def _mask(chosen: dict[str, Tensor], names: tuple[str, ...], groups: int) -> Tensor:
    mask = torch.zeros(groups, dtype=torch.bool)
    for name in names:
        mask = mask | chosen.get(name, torch.zeros_like(mask))
    return mask
