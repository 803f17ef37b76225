"""Samples that stay as they are, for methods that learn labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcl_distill.parameterizations.pixels import Pixels


@dataclass(frozen=True)
class FixedPixels(Pixels):
    """Pixels that optimisation leaves alone (Bohdal et al. 2020 learn the labels of given samples)."""

    name: ClassVar[str] = "fixed-pixels"
    frozen: ClassVar[frozenset[str]] = frozenset({"pixels"})
