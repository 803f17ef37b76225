"""Thumbnails against means of blocks by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.selection import Inputs, Thumbnails


def data(*shape: int) -> LabelledData:
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return LabelledData.from_tensors(samples, torch.arange(shape[0]) % 2)


def test_a_pixel_of_a_thumbnail_is_the_mean_of_its_block() -> None:
    real = data(1100, 3, 16, 8)  # more than are shrunk at a time, and not square
    expected = real.inputs().numpy().reshape(1100, 3, 4, 4, 4, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(Thumbnails(4).embed(real, seed=0), expected.reshape(1100, -1), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (5, 1, 8, 6)])
def test_what_is_small_already_stays_as_it_is(shape: tuple[int, ...]) -> None:
    real = data(*shape)
    assert torch.equal(Thumbnails().embed(real, seed=0), Inputs().embed(real, seed=0))


def test_a_thumbnail_has_pixels() -> None:
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        Thumbnails(0)
