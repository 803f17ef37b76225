"""Parameterizations: how synthetic data are stored and decoded."""

from fedcl_distill.parameterizations.addressing import Addressing
from fedcl_distill.parameterizations.base import (
    PARAMETERIZATIONS,
    Arrays,
    FixedPixels,
    LowRank,
    Parameterization,
    Pixels,
    Setting,
    Shape,
    Tiles,
    build_parameterization,
    register_parameterization,
    stored_settings,
)
from fedcl_distill.parameterizations.dct import DCT
from fedcl_distill.parameterizations.generator import GeneratorLatents

__all__ = [
    "DCT",
    "PARAMETERIZATIONS",
    "Addressing",
    "Arrays",
    "FixedPixels",
    "GeneratorLatents",
    "LowRank",
    "Parameterization",
    "Pixels",
    "Setting",
    "Shape",
    "Tiles",
    "build_parameterization",
    "register_parameterization",
    "stored_settings",
]
