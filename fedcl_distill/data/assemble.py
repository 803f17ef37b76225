"""From raw arrays to :class:`Splits`: what every source does last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData, Normalisation, Splits
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for

Pair = tuple[Tensor, Tensor]
"""Samples and their labels, int64 (n,)."""


def image_splits(
    train: Pair,
    test: Pair,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    mirrorable: bool = True,
) -> Splits:
    """Build splits from uint8 images (n, channels, height, width).

    Class names default to "0", "1", … up to the largest training label; the normalisation is measured on
    ``train``.

    Raises:
        DataError: no training images, two image shapes, or labels without a class.
    """
    if train[0].numel() == 0:
        raise DataError(f"{name}: the training images are empty, of shape {tuple(train[0].shape)}")
    if train[0].shape[1:] != test[0].shape[1:]:
        shapes = f"{tuple(train[0].shape[1:])} and {tuple(test[0].shape[1:])}"
        raise DataError(f"{name}: training and test images differ in shape (channels, height, width): {shapes}")
    names = tuple(class_names or (str(c) for c in range(int(train[1].max()) + 1)))
    measured = normalisation or pixel_normalisation(train[0])
    return Splits(
        train=LabelledData(*train, names, measured, name=name, mirrorable=mirrorable),
        test=LabelledData(*test, names, measured, name=f"{name} (test)", mirrorable=mirrorable),
    )


def pixel_normalisation(pixels: Tensor) -> Normalisation:
    """Measure the normalisation of uint8 images (n, channels, height, width) exactly, in unit values.

    It counts the 256 values of each channel, so that a large set needs no copy in floating point.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise DataError(f"expected uint8 images of 4 dimensions, got {pixels.dtype} {tuple(pixels.shape)}")
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in pixels.unbind(dim=1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (share * values).sum()
        deviation = (share * (values - mean).square()).sum().sqrt()
        means.append(float(mean))
        deviations.append(float(deviation) if deviation > 1e-6 else 1.0)
    return Normalisation(tuple(means), tuple(deviations))


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 (n, height, width[, channels]) into a tensor (n, channels, height, width)."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def int_labels(labels: NDArray[Any], where: str) -> Tensor:
    """Turn integer labels, (n,) or (n, 1), into int64 (n,).

    Raises:
        DataError: labels of another shape (several labels a sample) or that are no integers.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: labels must be (n,) or (n, 1), one label a sample, got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64))


def stratified_split(strata: Tensor, test_fraction: float, seed: int) -> Pair:
    """Split positions so that each stratum keeps about ``test_fraction`` of its samples for testing.

    Args:
        strata: int64 (n,), what to balance, such as the labels; a stratum always keeps one sample for
            training.
        test_fraction: in (0, 1).
        seed: fixes the split.

    Returns:
        Training and test positions, int64, ascending.
    """
    if not 0 < test_fraction < 1:
        raise SettingsError(f"test_fraction must be in (0, 1), got {test_fraction}")
    held_out = torch.zeros(len(strata), dtype=torch.bool)
    for stratum in sorted(set(strata.tolist())):
        members = (strata == stratum).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator_for(seed, "split", stratum))
        count = min(round(len(members) * test_fraction), len(members) - 1)
        held_out[members[order[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
