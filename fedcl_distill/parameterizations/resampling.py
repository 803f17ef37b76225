"""Bilinear enlargement of images, and its best inverse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
