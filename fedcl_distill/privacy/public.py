"""Scales that nobody measured: the mean and deviation of private data are a release of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedcl_distill.data.labelled import LabelledData, Normalisation
from fedcl_distill.errors import SettingsError


def publicly_scaled(
    data: LabelledData,
    normalisation: Normalisation | None = None,
    value_range: tuple[float, float] | None = None,
) -> LabelledData:
    """``data`` with a normalisation and a value range that do not follow from them.

    Pixels of 8 bits have a public range, [0, 1]. Other data need a ``value_range`` that is known without looking at
    them (from a manual, a law of nature, public data of the same kind); their values are clamped into it. Without a
    ``normalisation``, which must be public as well, the range is mapped to [-1, 1].

    Raises:
        SettingsError: data that are no images of 8 bits come without a range, or the range is empty.
        DataError: the normalisation has another number of channels.
    """
    pixels = data.samples.dtype == torch.uint8
    if pixels:
        value_range = (0.0, 1.0)
    if value_range is None:
        raise SettingsError(
            f"{data.name}: the range of such data was measured on them, and their mean and deviation, which would "
            "reveal them; private methods need a public range (public_range), or images of 8 bits"
        )
    low, high = value_range
    if not low < high:
        raise SettingsError(f"a value range must ascend, got [{low}, {high}]")
    if normalisation is None:
        channels = data.samples.shape[1]
        normalisation = Normalisation(((low + high) / 2,) * channels, ((high - low) / 2,) * channels)
    samples = data.samples if pixels else data.samples.clamp(low, high)
    return replace(data, samples=samples, normalisation=normalisation, value_range=value_range)
