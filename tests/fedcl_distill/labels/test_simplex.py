"""Truth: the optimality conditions of the projection, brute force over supports, and a fine grid."""

from __future__ import annotations

import itertools

import pytest
import torch

from fedcl_distill.labels import on_simplex


def rows(count: int, classes: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, classes, dtype=torch.float64, generator=generator)


def nearest_by_brute_force(point: torch.Tensor) -> torch.Tensor:
    """The nearest of the projections onto the faces that lie on the simplex: one for each set of positive entries."""
    best, best_gap = point, float("inf")
    for size in range(1, len(point) + 1):
        for support in itertools.combinations(range(len(point)), size):
            chosen = list(support)
            candidate = torch.zeros_like(point)
            candidate[chosen] = point[chosen] + (1 - point[chosen].sum()) / size
            gap = float((candidate - point).norm())
            if candidate.min() >= 0 and gap < best_gap:
                best, best_gap = candidate, gap
    return best


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
def test_it_is_the_nearest_point_of_the_simplex(classes: int, scale: float) -> None:
    points = rows(40, classes, scale)
    expected = torch.stack([nearest_by_brute_force(point) for point in points])
    torch.testing.assert_close(on_simplex(points), expected)


def test_no_point_of_a_fine_grid_is_nearer() -> None:
    steps = 60
    grid = torch.tensor(
        [(a / steps, b / steps, (steps - a - b) / steps) for a in range(steps + 1) for b in range(steps + 1 - a)],
        dtype=torch.float64,
    )
    points = rows(100, 3)
    reached = (on_simplex(points) - points).norm(dim=1)
    assert (reached <= torch.cdist(points, grid).min(dim=1).values + 1e-12).all()


def test_rows_are_probabilities_even_of_a_hundred_classes_in_float32() -> None:
    projected = on_simplex(rows(50, 100, scale=5).float())
    assert projected.min() >= 0
    torch.testing.assert_close(projected.sum(dim=1), torch.ones(50))


def test_probabilities_stay_as_they_are() -> None:
    probabilities = rows(20, 6).softmax(dim=1)
    torch.testing.assert_close(on_simplex(probabilities), probabilities)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    points = rows(20, 6)
    torch.testing.assert_close(on_simplex(points + 3.7), on_simplex(points))
