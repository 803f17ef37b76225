"""Parameterizations in a whole distillation."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import dm
from fedcl_distill.synthetic import decode, encode


@pytest.mark.parametrize("text", ["tiles:factor=2", "addressing", "addressing:bases=4,scale=1", "low-rank:rank=1"])
@pytest.mark.parametrize("counts", [[2, 1, 5], [3, 0, 3]])
def test_a_set_is_distilled_and_travels(text: str, counts: list[int]) -> None:
    data = blobs((3, 8, 12))
    method = dm(architecture="convnet:width=4,depth=2", parameterization=text, real_batch_per_class=8)
    out = method.distil(data, counts, seed=0, budget=Budget(steps=2), absent_classes="skip")
    stored = sum(array.numel() for array in out.arrays.values())
    assert stored <= sum(counts) * 3 * 8 * 12
    assert out.class_counts.tolist() == out.parameterization.decoded_counts(counts, (3, 8, 12))
    assert torch.equal(decode(encode(out, 32)).inputs(), out.inputs())


def test_feature_vectors_are_distilled_by_addresses() -> None:
    out = dm(architecture="mlp", parameterization="addressing:bases=3").distil(
        blobs((6,)), 4, seed=0, budget=Budget(steps=2)
    )
    assert out.sample_shape == (6,)
    assert out.inputs().isfinite().all()


@pytest.mark.parametrize("text", ["addressing", "low-rank", "generator"])
def test_clamping_what_holds_no_pixels_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no pixels"):
        dm(parameterization=text, clamp=True)


def test_clamped_tiles_stay_in_the_value_range() -> None:
    out = dm(architecture="convnet:width=4,depth=2", parameterization="tiles", clamp=True, learning_rate=100.0).distil(
        blobs(), 1, seed=0, budget=Budget(steps=3)
    )
    samples = out.samples()
    assert float(samples.min()) >= -1e-5
    assert float(samples.max()) <= 1 + 1e-5
