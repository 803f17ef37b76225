"""From PIL images to arrays, without importing PIL."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB"})


def is_pil_image(value: object) -> bool:
    """Whether ``value`` is a PIL image (recognised by its methods)."""
    return hasattr(value, "getbands") and hasattr(value, "convert")


def pixels_of(image: Any) -> NDArray[np.uint8]:
    """Return uint8 pixels (channels, height, width): 1 channel for grey modes, else 3; transparency is
    dropped.

    Raises:
        ValueError: more than 8 bits a channel, which a silent conversion would clip.
    """
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"), dtype=np.uint8)[np.newaxis]
    if image.mode in _COLOUR_MODES:
        return np.asarray(image.convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)
    raise ValueError(f"image mode {image.mode!r} has more than 8 bits a channel; convert it to 8 bits first")


def as_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the channel of a grey (1, height, width) array; colour passes as it is."""
    return np.repeat(pixels, 3, axis=0) if pixels.shape[0] == 1 else pixels
