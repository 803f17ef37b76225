"""Truth: a loop over layers and output rows, written out; differences of layers added up by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives import DISTANCES, AbsoluteDistance, CosineDistance, SquaredDistance


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7)])
def test_the_cosine_distance_equals_a_loop_over_output_rows(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    real, synthetic = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for one, other in zip(real, synthetic, strict=True):
        a, b = one.flatten().tolist(), other.flatten().tolist()
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        expected += 1 - dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)) + 1e-6)
    assert CosineDistance()(real, synthetic).item() == pytest.approx(expected, rel=1e-12)


def test_the_cosine_distance_does_not_know_scales() -> None:
    real = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert CosineDistance()(real, 7 * real).item() == pytest.approx(0, abs=1e-5)
    assert CosineDistance()(real, -7 * real).item() == pytest.approx(8, abs=1e-5)


def test_rows_without_a_gradient_count_one_and_stay_finite() -> None:
    real = torch.ones(3, 4)
    synthetic = torch.zeros(3, 4, requires_grad=True)
    distance = CosineDistance()(real, synthetic)
    distance.backward()
    assert distance.item() == pytest.approx(3)
    assert synthetic.grad is not None
    assert torch.isfinite(synthetic.grad).all()


def test_squared_and_absolute_distances_are_sums_of_differences() -> None:
    real, synthetic = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 4.0], [3.0, 1.0]])
    assert SquaredDistance()(real, synthetic).item() == 1 + 4 + 0 + 9
    assert AbsoluteDistance()(real, synthetic).item() == 1 + 2 + 0 + 3


def test_an_unknown_name_is_refused() -> None:
    assert DISTANCES.build("squared") == SquaredDistance()
    with pytest.raises(SettingsError, match="absolute, cosine, squared"):
        DISTANCES.build("euclidean")
