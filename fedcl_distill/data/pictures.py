"""What a picture becomes: uint8 pixels, upright, on white, of one size; and what was done to it is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedcl_distill._imports import require

Pixels = NDArray[np.uint8]
"""(channels, height, width)."""
Fit = Literal["crop", "stretch"]
"""How a picture of other proportions comes to its size: its middle is cut out, or its sides are stretched."""

_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB"})
_DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112  # the tag of EXIF; 1 is upright
_DEEP = 65535


def is_pil_image(value: object) -> bool:
    """Whether ``value`` is a PIL image (recognised by its methods)."""
    return hasattr(value, "getbands") and hasattr(value, "convert")


def pixels_of(image: Any, done: Counter[str] | None = None) -> Pixels:
    """Return uint8 pixels (channels, height, width) of a PIL image: 1 channel for grey modes, else 3.

    The picture is turned upright as its EXIF data say. Values of 16 bits are divided by 257, so that 0…65535 become
    0…255 whatever the picture holds. Palettes, CMYK and other colour spaces become RGB. Transparent pixels lie on
    white. Of several frames the first counts.

    Args:
        image: a PIL image.
        done: takes a count of each of these conversions.

    Raises:
        ValueError: floating-point pixels, or whole ones beyond 16 bits: nothing says what is white.
    """
    done = Counter() if done is None else done
    if getattr(image, "n_frames", 1) > 1:
        done["of several frames, of which the first is taken"] += 1
    image = _upright(image, done)
    if image.mode in _DEEP_MODES:
        return _eight_bits(np.asarray(image), done)[np.newaxis]
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise ValueError(f"image mode {image.mode!r} does not say which values are black and white; convert it first")
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.mode in ("P", "PA"):
        done["with a palette, made RGB"] += 1
    elif image.mode in ("CMYK", "YCbCr", "HSV", "LAB"):
        done[f"in {image.mode}, made RGB"] += 1
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _on_white(image, mode, done)
    pixels = np.asarray(image.convert(mode), dtype=np.uint8)
    return pixels[np.newaxis] if mode == "L" else pixels.transpose(2, 0, 1)


def _upright(image: Any, done: Counter[str]) -> Any:
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged EXIF data say nothing; the pixels may be whole
        return image
    if not turned:
        return image
    done["turned upright, as EXIF says"] += 1
    return require("PIL.ImageOps", "turning pictures upright").exif_transpose(image)


def _eight_bits(values: NDArray[Any], done: Counter[str]) -> Pixels:
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= _DEEP:
        raise ValueError(f"values from {values.min()} to {values.max()} are not of 16 bits; convert the picture first")
    done["of 16 bits, divided by 257"] += 1
    return np.rint(values / (_DEEP / 255)).astype(np.uint8)


def _on_white(image: Any, mode: str, done: Counter[str]) -> Any:
    """``image``, in mode L or RGB, blended with white by its own opacity."""
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    opacity = straight.getchannel("A")
    if opacity.getextrema()[0] < 255:
        done["transparent in places, laid on white"] += 1
    white = straight.convert(mode)
    white.paste(255 if mode == "L" else (255, 255, 255), (0, 0, *white.size))
    white.paste(straight.convert(mode), mask=opacity)
    return white


def as_rgb(pixels: Pixels) -> Pixels:
    """Repeat the channel of a grey (1, height, width) array; colour passes as it is."""
    return np.repeat(pixels, 3, axis=0) if pixels.shape[0] == 1 else pixels


def resized(pixels: Pixels, size: tuple[int, int], fit: Fit, done: Counter[str] | None = None) -> Pixels:
    """``pixels`` at ``size`` (height, width), interpolated bilinearly (smoothed before they become smaller).

    Args:
        pixels: uint8 (1 or 3, height, width).
        size: height and width.
        fit: "crop" scales until ``size`` is covered, and keeps its middle; "stretch" scales each side on its own.
        done: takes a count of what was resized, cropped or enlarged.
    """
    done = Counter() if done is None else done
    old, new = pixels.shape[1:], size
    if old == size:
        return pixels
    if fit == "crop":
        scale = max(wanted / side for wanted, side in zip(size, old, strict=True))
        new = (max(size[0], round(old[0] * scale)), max(size[1], round(old[1] * scale)))
    done["resized"] += 1
    done["enlarged, being smaller"] += new[0] > old[0] or new[1] > old[1]
    done["cut at two sides, to keep proportions"] += new != size
    # PIL interpolates palette and 1-bit images by nearest neighbour, so that decoded pixels are resized instead.
    images = require("PIL.Image", "resizing pictures")
    picture = images.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    top, left = (new[0] - size[0]) // 2, (new[1] - size[1]) // 2
    scaled = picture.resize((new[1], new[0]), images.Resampling.BILINEAR)
    return pixels_of(scaled.crop((left, top, left + size[1], top + size[0])))
