"""Truth: a plain, sample-by-sample second implementation of each operation, and gradcheck."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.augmentation import OPERATIONS, NoAugmentation, SiameseAugmentation, augmentation_for
from fedcl_distill.errors import SettingsError

SHAPE = (3, 12, 20)


def draw(operation: str, groups: int = 40, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> object:
    return SiameseAugmentation((operation,)).draw(groups, shape, torch.Generator().manual_seed(seed))


def images(count: int = 40, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def test_crop_shifts_by_whole_pixels_and_fills_with_zeros() -> None:
    inputs = images()
    cropped = draw("crop")(inputs, torch.arange(40))
    shifts = Counter()
    for before, after in zip(inputs, cropped, strict=True):
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-3, 4)
            if torch.allclose(_shifted(before, dy, dx), after, atol=1e-4)
        ]
        assert len(matches) == 1
        shifts[matches[0]] += 1
    assert len(shifts) > 15
    assert {dy for dy, _ in shifts} == set(range(-2, 3))  # 12 × 0.125 rounds to 2 pixels, 20 × 0.125 to 3
    assert {dx for _, dx in shifts} == set(range(-3, 4))


def _shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    padded = torch.nn.functional.pad(image, (3, 3, 3, 3))
    return padded[:, 3 + dy : 3 + dy + image.shape[1], 3 + dx : 3 + dx + image.shape[2]]


def test_flip_mirrors_about_half() -> None:
    inputs = images(200)
    flipped = draw("flip", 200)(inputs, torch.arange(200))
    mirrored = [torch.allclose(after, before.flip(2), atol=1e-4) for before, after in zip(inputs, flipped, strict=True)]
    same = [torch.allclose(after, before, atol=1e-4) for before, after in zip(inputs, flipped, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130


def test_cutout_zeroes_one_clipped_rectangle() -> None:
    holes = draw("cutout")(torch.ones(40, *SHAPE), torch.arange(40)) == 0
    for hole in holes:
        assert torch.equal(hole[0], hole[2])
        rows, columns = hole[0].any(1).nonzero().flatten(), hole[0].any(0).nonzero().flatten()
        assert hole[0].sum() == len(rows) * len(columns)
        assert 3 <= len(rows) <= 6
        assert 5 <= len(columns) <= 10
        assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))


def test_color_equals_the_three_published_steps() -> None:
    inputs = images()
    parameters = draw("color")
    result = parameters(inputs, torch.arange(40))
    for image, after, (brightness, saturation, contrast) in zip(inputs, result, parameters.color_factors, strict=True):
        assert -0.5 <= brightness <= 0.5
        assert 0 <= saturation <= 2
        assert 0.5 <= contrast <= 1.5
        step = image + brightness
        step = step.mean(0) + saturation * (step - step.mean(0))
        step = step.mean() + contrast * (step - step.mean())
        torch.testing.assert_close(after, step)


def test_scale_and_rotation_move_a_ramp_as_the_formula_says() -> None:
    # A linear ramp is resampled exactly by bilinear interpolation, so the map itself can be read off inside the frame.
    height, width = SHAPE[1:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    ramps = torch.stack([x, y, torch.ones_like(x)]).expand(40, 3, height, width)
    for operation in ("scale", "rotate"):
        parameters = draw(operation)
        result = parameters(ramps, torch.arange(40))
        for after, affine in zip(result, parameters.affine, strict=True):
            source = torch.einsum("ij,jhw->ihw", affine[:, :2], torch.stack([x, y]))
            inside = (source.abs() <= 1).all(0)
            torch.testing.assert_close(after[:2, inside], source[:, inside], atol=1e-5, rtol=1e-4)
            if operation == "rotate":
                angle = math.degrees(math.atan2(float(affine[1, 0]), float(affine[0, 0])))
                assert abs(angle) <= 15
            else:
                assert 1 / 1.2 <= affine[0, 0] <= 1.2
                assert 1 / 1.2 <= affine[1, 1] <= 1.2


def test_both_sides_get_the_parameters_of_their_group() -> None:
    parameters = SiameseAugmentation().draw(5, SHAPE, torch.Generator().manual_seed(3))
    image = images(1).expand(10, *SHAPE)
    groups = torch.tensor([0, 1, 2, 3, 4, 4, 3, 2, 1, 0])
    result = parameters(image, groups)
    for first, second in zip(range(5), range(9, 4, -1), strict=True):
        assert torch.equal(result[first], result[second])


def test_each_group_gets_one_operation_and_all_are_drawn_alike_often() -> None:
    parameters = SiameseAugmentation().draw(600, SHAPE, torch.Generator().manual_seed(0))
    shares = torch.bincount(parameters.kinds, minlength=3) / 600
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 1 / 6, 4 / 6]), atol=0.05, rtol=0)


def test_a_mixed_batch_is_augmented_as_each_of_its_samples_alone() -> None:
    parameters = SiameseAugmentation().draw(24, SHAPE, torch.Generator().manual_seed(5))
    assert len(parameters.kinds.unique()) == 3
    inputs, groups = images(24).requires_grad_(), torch.randperm(24, generator=torch.Generator().manual_seed(6))
    together = parameters(inputs, groups)
    alone = torch.cat([parameters(inputs[row : row + 1], groups[row : row + 1]) for row in range(24)])
    torch.testing.assert_close(together, alone)
    weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(7))
    gradients = [torch.autograd.grad((one * weights).sum(), inputs)[0] for one in (together, alone)]
    torch.testing.assert_close(*gradients)
    assert parameters(inputs[:0], groups[:0]).shape == (0, *SHAPE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_right(operation: str) -> None:
    parameters = draw(operation, 3, shape=(3, 5, 6))
    inputs = torch.randn(3, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: parameters(x, torch.arange(3)), (inputs,))


def test_feature_vectors_are_refused_and_digits_are_not_mirrored() -> None:
    with pytest.raises(SettingsError, match="images"):
        SiameseAugmentation().draw(2, (13,), torch.Generator())
    with pytest.raises(SettingsError, match="operations"):
        SiameseAugmentation(("flip", "solarize"))
    assert isinstance(augmentation_for(blobs((5,))), NoAugmentation)
    assert "flip" not in augmentation_for(blobs(allow_hflip=False)).operations
    assert augmentation_for(blobs(allow_hflip=True)) == SiameseAugmentation()


def test_global_rng_is_left_alone(untouched_global_rng: None) -> None:
    SiameseAugmentation().draw(5, SHAPE, torch.Generator().manual_seed(3))(images(5), torch.arange(5))
