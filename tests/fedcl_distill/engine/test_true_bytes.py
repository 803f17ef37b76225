"""Truth: a budget in bytes is filled by what the payload codes, and never exceeded, whatever the values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget, ByteBudget, count_per_class
from fedcl_distill.engine.size import cut_to_fit
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.parameterizations import Pixels, Tiles
from fedcl_distill.synthetic import SyntheticSet, encode, encoded_bytes


@pytest.mark.parametrize("store", ["pixels", "tiles:factor=2", "dct:frequencies=16,step=0.3"])
def test_distilled_sets_fill_a_budget_and_never_exceed_it(digits: Splits, store: str) -> None:
    method = build_method("dm", parameterization=store, architecture="convnet:width=4,depth=1")
    for room in (500, 1500):
        made = method.distil(digits.train, ByteBudget(room), seed=0, budget=Budget(steps=2))
        assert 0.7 * room < len(encode(made, provenance=False)) <= room
        counts = made.class_counts
        assert int(counts.max()) - int(counts.min()) <= 4  # samples of a stored image


def test_more_samples_fit_than_would_without_coding(digits: Splits) -> None:
    size = ByteBudget(1500, 4)
    made = build_method("dm", architecture="convnet:width=4,depth=1").distil(
        digits.train, size, seed=0, budget=Budget(steps=2)
    )
    assert len(made) > sum(count_per_class(size, digits.train, Pixels()))


def test_sets_that_became_too_large_lose_the_last_samples_of_the_largest_classes() -> None:
    counts = torch.tensor([5, 3, 4])
    labels = torch.arange(3).repeat_interleave(counts).repeat_interleave(4)
    noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made = build_set(noise, labels)
    whole = encoded_bytes(made, 8, provenance=False)
    assert cut_to_fit(made, ByteBudget(whole)) is made
    cut = cut_to_fit(made, ByteBudget(whole - 1))
    assert cut.class_counts.tolist() == [16, 12, 16]
    assert torch.equal(cut.arrays["pixels"], noise[[0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]])
    smaller = cut_to_fit(made, ByteBudget(whole // 2))
    assert smaller.class_counts.tolist() == [8, 8, 4] or smaller.class_counts.sum() in (20, 24)
    assert encoded_bytes(smaller, 8, provenance=False) <= whole // 2
    with pytest.raises(SettingsError, match="bytes hold no sample"):
        cut_to_fit(made, ByteBudget(20))


def build_set(pixels: torch.Tensor, labels: torch.Tensor) -> SyntheticSet:
    from synthetic_builders import make_set

    plain = make_set(tuple(pixels.shape), classes=3, pixels=pixels, labels=torch.zeros(len(pixels), dtype=torch.int64))
    return replace(plain, parameterization=Tiles(2), labels=labels)
