"""Truth: images of one value each, so that every pixel tells which sample it is from."""

from __future__ import annotations

import pytest
import torch

from fedcl_distill.augmentation import cutmix


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 11)])
def test_labels_are_mixed_by_the_area_that_was_taken(shape: tuple[int, ...]) -> None:
    values = torch.arange(5.0)
    inputs = values[:, None, None, None].expand(5, *shape)
    for seed in range(50):
        mixed, labels = cutmix(inputs, torch.eye(5), seed=seed)
        for sample, label in zip(mixed, labels, strict=True):
            shares = torch.stack([(sample == value).float().mean() for value in values])
            torch.testing.assert_close(label, shares)


def test_the_box_is_the_same_in_all_samples_and_channels_and_is_a_rectangle() -> None:
    inputs = torch.arange(4.0)[:, None, None, None].expand(4, 2, 9, 9)
    for seed in range(30):
        mixed, _ = cutmix(inputs, torch.eye(4), seed=seed)
        taken = (mixed != inputs).flatten(0, 1)
        box = taken.any(dim=0)
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows[:, None] & columns[None, :])
        assert all(torch.equal(one, box) for one in taken if one.any())


def test_areas_spread_over_the_whole_range() -> None:
    inputs = torch.arange(2.0)[:, None, None, None].expand(2, 1, 20, 20)
    areas = torch.stack([cutmix(inputs, torch.eye(2), seed=seed)[1][0, 1] for seed in range(300)])
    assert areas.min() < 0.05
    assert areas.max() > 0.6


def test_a_mixture_is_named_by_its_seed_and_leaves_the_batch_alone() -> None:
    inputs = torch.randn(6, 1, 8, 8)
    before = inputs.clone()
    one, again = (cutmix(inputs, torch.eye(6), seed=3)[0] for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(inputs, before)
    assert not torch.equal(one, cutmix(inputs, torch.eye(6), seed=4)[0])


def test_a_single_sample_mixes_with_itself() -> None:
    inputs = torch.randn(1, 1, 8, 8)
    mixed, labels = cutmix(inputs, torch.eye(1), seed=0)
    assert torch.equal(mixed, inputs)
    torch.testing.assert_close(labels, torch.eye(1))
