"""Augmentations whose parameters are drawn once and applied alike to both sides: DSA, or any callable on a batch."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, overload, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, Normalisation, spec_of
from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import Registry, parse, qualified_name
from fedcl_distill.seeding import generator_for, isolated_rng
from fedcl_distill.settings import Fraction, NonNegative, Range, settings


class Draw(Protocol):
    """One random draw of an augmentation's parameters, applicable any number of times."""

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Augment ``inputs`` (n, …), differentiably; sample i uses the parameters drawn for ``groups[i]``."""
        ...


@runtime_checkable
class Augmentation(Protocol):
    """Draws parameters; the draw is then a pure function, so two sides can share it."""

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        """Draw parameters for ``groups`` groups of samples (classes when matching, single samples when training).

        Raises:
            SettingsError: samples of this shape cannot be augmented so.
        """
        ...


Transform = Callable[..., Tensor]
"""Any callable on a batch, float32 (n, …) → the same shape; with a generator as second argument where it takes one."""

AUGMENTATIONS: Registry[Augmentation | Transform] = Registry("augmentation", "fedcl_distill.augmentations")
"""Augmentations by name; ``"dsa:operations=[color,crop]"`` is one as text."""

register_augmentation = AUGMENTATIONS.register


@register_augmentation("none")
@settings
class NoAugmentation:
    """Leaves samples as they are."""

    name: ClassVar[str] = "none"

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _unchanged


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


@register_augmentation("sequence")
@settings
class InSequence:
    """Applies ``parts`` in order, each with parameters of its own; where DSA picks one operation, this does all.

    IDC's ``color_crop_cutout`` is three DSAs of one operation each (Kim et al. 2022, their code).

    Attributes:
        parts: augmentations, transforms, or what describes them; kept as augmentations.
    """

    name: ClassVar[str] = "sequence"
    parts: Sequence[Augmentation | Transform | str | Mapping[str, Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(as_augmentation(part) for part in self.parts))

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        return _Applied([as_augmentation(part).draw(groups, sample_shape, generator) for part in self.parts])


@dataclass(frozen=True)
class _Applied:
    draws: Sequence[Draw]

    def __call__(self, inputs: Tensor, groups: Tensor) -> Tensor:
        for draw in self.draws:
            inputs = draw(inputs, groups)
        return inputs


Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
OPERATIONS: tuple[Operation, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")
_GEOMETRIC = ("crop", "flip", "scale", "rotate")
_KINDS = {name: 2 if name in _GEOMETRIC else place for place, name in enumerate(("color", "cutout", *_GEOMETRIC))}
"""Operations of one kind are applied as one: to recolour, to cut a hole, to move pixels."""


@register_augmentation("dsa")
@settings
class SiameseAugmentation:
    """One operation a group, drawn from ``operations`` (DSA, Zhao and Bilen 2021, section 3.3 and their code).

    Attributes:
        operations: names out of color, crop, cutout, flip, scale, rotate; leave out flip where a mirrored sample is
            another class (digits).
        brightness, saturation, contrast: strengths of the three steps of ``color``.
        crop, cutout: shift and hole, as fractions of height and width.
        scale: largest zoom, applied to height and width apart; the smallest is its inverse.
        rotate: largest angle, degrees.

    Raises:
        SettingsError: on construction, if a value is out of range, or there is no operation.
    """

    name: ClassVar[str] = "dsa"
    operations: Sequence[Operation] = OPERATIONS
    brightness: NonNegative = 1.0
    saturation: NonNegative = 2.0
    contrast: NonNegative = 0.5
    crop: Fraction = 0.125
    cutout: Fraction = 0.5
    scale: Annotated[float, Range(ge=1)] = 1.2
    rotate: Annotated[float, Range(ge=0, le=180)] = 15.0

    def __post_init__(self) -> None:
        if not self.operations:
            raise SettingsError(f"SiameseAugmentation: operations must be some of {', '.join(OPERATIONS)}, got none")
        object.__setattr__(self, "operations", tuple(self.operations))

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


@settings
class CallableAugmentation:
    """Any transform of a batch: a function, a module of ``kornia.augmentation``, of ``torchvision.transforms.v2``, ….

    A transform gets float32 network inputs (n, …), which are normalised, and returns as many of the same shape and
    dtype. When matching, gradients must pass it, so that one that goes through PIL or uint8 is refused; when training,
    they need not.

    A transform is a closed box, so that what it draws is fixed by seeds: all samples of a group go through it in one
    call, under the seed of their group, on both sides alike. What a transform draws once a call (torchvision's, or
    kornia's with ``same_on_batch=True``) is so the same for a group (a class) on both sides. What it draws for each
    sample differs from sample to sample, and both sides see the same distribution. When training, each sample is a
    group: one call for each.

    A transform with a parameter ``generator``, or a second positional one, gets a seeded CPU generator there. Others
    draw from the global state of torch, numpy and Python, which is seeded for the call and put back after it. One call
    at a time does that, in all threads; code of others that draws from the global state meanwhile is not held off.

    Attributes:
        transform: maps (n, …) to (n, …).
        on_pixels: whether it expects unit values (pixels in [0, 1]), as those of torchvision and kornia do that change
            colours: samples are brought there and back.
        normalisation: what brings them there; None takes that of the data that are augmented, where that is known.
        each_group: whether every group has draws of its own; False takes one call, under one seed, for all samples,
            which is faster when training and all the same for transforms that draw for each sample.

    Raises:
        SettingsError: when applied, if the transform fails, changes shape or dtype, or stops gradients.

    Example:
        >>> double = CallableAugmentation(lambda batch: 2 * batch)
        >>> draw = double.draw(1, (3,), torch.Generator().manual_seed(0))
        >>> draw(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64)).sum()
        tensor(12.)
    """

    transform: Transform
    on_pixels: bool = False
    normalisation: Normalisation | None = field(default=None, repr=False)
    each_group: bool = True
    plain: Any = field(default=None, repr=False, compare=False)

    def draw(self, groups: int, sample_shape: tuple[int, ...], generator: torch.Generator) -> Draw:
        if self.on_pixels and self.normalisation is None:
            raise SettingsError(
                f"augmentation {self.describe()}: on_pixels needs to know the data's normalisation here; "
                "give CallableAugmentation(…, on_pixels=True, normalisation=data.normalisation)"
            )
        number = groups if self.each_group else 1
        seeds: list[int] = torch.randint(2**62, (number,), generator=generator).tolist()
        return functools.partial(self._apply, seeds)

    def describe(self) -> Any:
        """The registered name, that of the function, or the module with its settings in one line."""
        if self.plain is not None:
            return self.plain
        named = " ".join(repr(self.transform).split()) if isinstance(self.transform, torch.nn.Module) else ""
        if not named or " at 0x" in named:
            named = qualified_name(self.transform)
        return f"{named} on pixels" if self.on_pixels else named

    def _apply(self, seeds: list[int], inputs: Tensor, groups: Tensor) -> Tensor:
        if not len(inputs):
            return inputs
        if len(seeds) == 1:
            return self._call(inputs, seeds[0])
        order = groups.argsort(stable=True)
        present, counts = torch.unique(groups[order], return_counts=True)
        parts = zip(torch.split(inputs[order.to(inputs.device)], counts.tolist()), present.tolist(), strict=True)
        changed = torch.cat([self._call(part, seeds[group]) for part, group in parts])
        return changed[order.argsort().to(inputs.device)]

    def _call(self, inputs: Tensor, seed: int) -> Tensor:
        unit = self.normalisation if self.on_pixels else None
        try:
            changed = _called_with_seed(self.transform, inputs if unit is None else unit.invert(inputs), seed)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise self._refused(inputs, f"fails: {error}") from error
        if not isinstance(changed, Tensor) or changed.shape != inputs.shape or changed.dtype != inputs.dtype:
            got = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            raise self._refused(inputs, f"must give the same shape and dtype, got {got}")
        if inputs.requires_grad and torch.is_grad_enabled() and not changed.requires_grad:
            raise self._refused(inputs, "lets no gradient pass, which matching needs; PIL and uint8 do not")
        return changed if unit is None else unit.apply(changed)

    def _refused(self, inputs: Tensor, why: str) -> SettingsError:
        return SettingsError(f"augmentation {self.describe()} on a batch of {inputs.dtype} {tuple(inputs.shape)} {why}")


def _called_with_seed(transform: Transform, batch: Tensor, seed: int) -> Tensor:
    """``transform(batch)``, whose draws follow from ``seed`` alone; the global random state is as before."""
    generator = torch.Generator().manual_seed(seed)
    how = _generator_argument(transform)
    if how == "keyword":
        return transform(batch, generator=generator)
    if how == "positional":
        return transform(batch, generator)
    with isolated_rng(seed):
        return transform(batch)


def _generator_argument(transform: Transform) -> Literal["keyword", "positional"] | None:
    """How ``transform`` takes a generator, if it does."""
    called = transform.forward if isinstance(transform, torch.nn.Module) else transform
    try:
        known = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):  # made in C
        return None
    if any(one.name == "generator" for one in known):
        return "keyword"
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one for one in known if one.default is one.empty and one.kind in positional]
    return "positional" if len(needed) == 2 else None


@overload
def as_augmentation(value: None) -> None: ...


@overload
def as_augmentation(value: Augmentation | Transform | str | Mapping[str, Any]) -> Augmentation: ...


def as_augmentation(value: Augmentation | Transform | str | Mapping[str, Any] | None) -> Augmentation | None:
    """The augmentation that ``value`` is or describes, or a transform wrapped as one; None stays None.

    Raises:
        SettingsError: it is none of these, or no augmentation of this name or with these settings is registered.

    Example:
        >>> as_augmentation("dsa:operations=[color,crop]").operations
        ('color', 'crop')
    """
    if value is None:
        return None
    plain = parse(value) if isinstance(value, str) else value
    part = AUGMENTATIONS.build(plain) if isinstance(plain, Mapping) else plain
    if isinstance(part, Augmentation) and not isinstance(part, type):
        return part
    if not callable(part) or isinstance(part, type):
        raise SettingsError(
            f"{value!r} is no augmentation; give a callable on a batch, or one of: {', '.join(AUGMENTATIONS.names())}"
        )
    return CallableAugmentation(part, plain=_shortest(plain) if isinstance(plain, Mapping) else None)


def _shortest(plain: Mapping[str, Any]) -> Any:
    return plain["name"] if len(plain) == 1 else dict(plain)


def augmentation_for(
    data: DataSpec | LabelledData, given: Augmentation | Transform | str | Mapping[str, Any] | None = None
) -> Augmentation:
    """What ``given`` means for ``data``; without it DSA for images, nothing for feature vectors.

    DSA flips only where a mirrored image keeps its class.
    """
    spec = spec_of(data)
    if given is not None:
        return _on_pixels_of(as_augmentation(given), spec.normalisation)
    if not spec.is_image:
        return NoAugmentation()
    if spec.allow_hflip:
        return SiameseAugmentation()
    return SiameseAugmentation(operations=tuple(name for name in OPERATIONS if name != "flip"))


def _on_pixels_of(augmentation: Augmentation, normalisation: Normalisation) -> Augmentation:
    """``augmentation``, which knows how to reach pixels wherever it must."""
    if isinstance(augmentation, InSequence):
        parts = (as_augmentation(part) for part in augmentation.parts)
        return replace(augmentation, parts=[_on_pixels_of(part, normalisation) for part in parts])
    if isinstance(augmentation, CallableAugmentation) and augmentation.normalisation is None:
        return replace(augmentation, normalisation=normalisation)
    return augmentation


__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "CallableAugmentation",
    "Draw",
    "InSequence",
    "NoAugmentation",
    "SiameseAugmentation",
    "Transform",
    "as_augmentation",
    "augmentation_for",
    "cutmix",
    "register_augmentation",
]
