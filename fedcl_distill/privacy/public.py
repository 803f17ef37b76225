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

    Pixels of 8 bits have a public range, [0, 1]; their inputs are mapped to [-1, 1]. Other data need both arguments,
    which must be known without looking at the data (from a manual, a law of nature, public data of the same kind);
    their values are clamped into the range.

    Raises:
        SettingsError: data that are no images of 8 bits come without normalisation or range, or the range is empty.
        DataError: the normalisation has another number of channels.
    """
    pixels = data.samples.dtype == torch.uint8
    if pixels:
        value_range = (0.0, 1.0)
        if normalisation is None:
            half = (0.5,) * data.samples.shape[1]
            normalisation = Normalisation(half, half)
    if normalisation is None or value_range is None:
        raise SettingsError(
            f"{data.name}: mean, deviation and range of such data were measured on them, which would reveal them; "
            "private methods need publicly known ones (publicly_scaled), or images of 8 bits"
        )
    low, high = value_range
    if not low < high:
        raise SettingsError(f"a value range must ascend, got [{low}, {high}]")
    samples = data.samples if pixels else data.samples.clamp(low, high)
    return replace(data, samples=samples, normalisation=normalisation, value_range=value_range)


def is_publicly_scaled(data: LabelledData) -> bool:
    """Whether ``data`` are images of 8 bits on the scale that every one has without a look at it."""
    return data.samples.dtype == torch.uint8 and data.normalisation == publicly_scaled(data).normalisation
