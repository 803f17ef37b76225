"""How synthetic data are stored, and how what is stored decodes to samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

Shape = tuple[int, ...]
Arrays = dict[str, Tensor]
Setting = str | int | float | bool | None


class Parameterization(Protocol):
    """What is stored (named float32 arrays) and its differentiable decoding to network inputs.

    Stored arrays live in the space of network inputs (normalised values), so that learning rates of the literature
    apply as they are; :class:`~fedcl_distill.synthetic.SyntheticSet` maps decoded samples back to unit values.
    """

    name: ClassVar[str]

    def settings(self) -> dict[str, Setting]:
        """What rebuilds this object: keyword arguments of its class, as JSON scalars."""
        ...

    def start(self, samples: Tensor) -> Arrays:
        """Arrays that decode as closely as possible to ``samples``, float32 (n, …) network inputs."""
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
