"""What a parameterization is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.context import SetupContext
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.registry import Registry, build_with, describe


def enlarge(images: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, height, width): ``images`` interpolated bilinearly, pixels being areas (no aligned corners)."""
    if images.shape[2:] == (height, width):
        return images
    if len(images) == 0:  # which torch does not interpolate
        return images.new_zeros(0, images.shape[1], height, width)
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)


def enlarging(small: int, large: int) -> Tensor:
    """float64 (large, small): :func:`enlarge` along one axis, as a matrix. Along two, it does one after the other."""
    rows = torch.eye(small, dtype=torch.float64)[None]
    return F.interpolate(rows, size=large, mode="linear", align_corners=False)[0].T.contiguous()


def shrink(images: Tensor, height: int, width: int) -> Tensor:
    """(n, channels, height, width): what :func:`enlarge` brings closest to ``images``, in the mean square."""
    rows = torch.linalg.pinv(enlarging(height, images.shape[2]))
    columns = torch.linalg.pinv(enlarging(width, images.shape[3]))
    small: Tensor = rows.to(images) @ images @ columns.to(images).T
    return small


Shape = tuple[int, ...]
Arrays = dict[str, Tensor]
Setting = str | int | float | bool | None


@runtime_checkable
class Parameterization(Protocol):
    """What is stored (named float32 arrays) and its differentiable decoding to network inputs.

    Stored arrays live in the space of network inputs (normalised values), so that learning rates of the literature
    apply as they are; :class:`~fedcl_distill.synthetic.SyntheticSet` maps decoded samples back to unit values.

    Parameterizations are dataclasses whose fields are JSON scalars: these, and the registered name, are what a payload
    says of them. Those that differ from their defaults are stored; so defaults are part of the file format.

    The size of a set is always counted in whole samples stored as pixels: for a size of ``counts`` a class, no
    parameterization stores more values than as many pixels, labels and what :attr:`frozen` names left aside. From the
    same storage it may decode more samples.

    Attributes:
        name: the registered one.
        pixel_arrays: arrays that hold pixel values with channels as their second dimension, so that they can be
            clamped to the value range.
        frozen: arrays that decoding needs but optimisation leaves alone.

    Two more are optional: ``separable``, True where every row of the arrays with values decodes to samples of its own,
    so that sets can be cut to fit into bytes; and a method ``settled(arrays)``, which gives arrays that decode to the
    same samples in fewer bytes.
    """

    name: ClassVar[str]
    pixel_arrays: ClassVar[frozenset[str]]
    frozen: ClassVar[frozenset[str]]

    def decoded_counts(self, counts: Sequence[int], sample_shape: Shape) -> list[int]:
        """Samples of each class that storage for ``counts`` whole samples decodes to; 0 stays 0.

        Raises:
            SettingsError: samples of this shape cannot be stored so, or so few whole samples do not suffice.
        """
        ...

    def shapes(self, counts: Sequence[int], sample_shape: Shape) -> dict[str, Shape]:
        """Shapes of the arrays that are stored for ``counts`` whole samples: what :meth:`start` returns."""
        ...

    def start(self, samples: Tensor, counts: Sequence[int], problem: SetupContext) -> Arrays:
        """Arrays that decode as closely as possible to ``samples``.

        Args:
            samples: float32 network inputs, as many of each class as :meth:`decoded_counts` says, in order of class.
            counts: the size, in whole samples of each class.
            problem: the real data and so on, for parameterizations that must learn how to decode.
        """
        ...

    def decode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Samples, float32 (n, channels, height, width) or (n, features), differentiable in ``arrays``."""
        ...

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        """Shape that :meth:`decode` will give for arrays of these shapes, computed without any allocation.

        Raises:
            PayloadError: arrays are missing, superfluous or of shapes that do not fit together.
        """
        ...


PARAMETERIZATIONS: Registry[Parameterization] = Registry(
    "parameterization", "fedcl_distill.parameterizations", Parameterization
)
register_parameterization = PARAMETERIZATIONS.register


def build_parameterization(name: str, settings: Mapping[str, Setting]) -> Parameterization:
    """Rebuild the parameterization that a file or message names.

    Raises:
        PayloadError: the name or a setting is unknown.
    """
    try:
        entry = PARAMETERIZATIONS[name]
        return build_with(f"parameterization {entry.name!r}", entry.build, settings)
    except SettingsError as error:
        raise PayloadError(str(error)) from error


def stored_settings(parameterization: Parameterization) -> dict[str, Setting]:
    """Settings that are not the defaults of the class: defaults are part of the file format, and cost no bytes."""
    plain = describe(parameterization)
    return {} if isinstance(plain, str) else {name: value for name, value in plain.items() if name != "name"}
