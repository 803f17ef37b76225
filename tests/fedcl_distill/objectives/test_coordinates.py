"""Truth: the similarity of two numbers, number by number in plain Python."""

from __future__ import annotations

import pytest
import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives import AllCoordinates, PrunedCoordinates
from fedcl_distill.objectives.trajectories import relative_distance


def similarity(one: float, other: float) -> float:
    if one * other < 0:
        return 0.0
    if one == other == 0:
        return 1.0
    return min(abs(one), abs(other)) / max(abs(one), abs(other))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_weights_of_too_small_similarity_are_left_out(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    expert = student + 0.5 * torch.randn(40, 5, dtype=torch.float64, generator=generator)
    student[0, :2], expert[0, 1:3] = 0.0, 0.0
    kept = PrunedCoordinates(threshold).keep(student, expert)
    expected = [
        similarity(a, b) >= threshold
        for a, b in zip(student.flatten().tolist(), expert.flatten().tolist(), strict=True)
    ]
    assert kept.flatten().tolist() == expected
    assert 0 < sum(expected) < 200


def test_two_zeros_are_alike() -> None:
    assert PrunedCoordinates(1.0).keep(torch.zeros(2), torch.zeros(2)).all()


def test_threshold_zero_keeps_everything() -> None:
    student, expert = torch.randn(50), torch.randn(50)
    assert PrunedCoordinates(0.0).keep(student, expert).all()
    assert AllCoordinates().keep(student, expert).all()


def test_pruned_weights_count_in_neither_norm_of_the_loss() -> None:
    student, start, end = (torch.randn(30, dtype=torch.float64) for _ in range(3))
    kept = PrunedCoordinates(0.3).keep(student, end)
    expected = (student - end)[kept].square().sum() / (start - end)[kept].square().sum()
    found = relative_distance(
        (student[:10], student[10:]), (start[:10], start[10:]), (end[:10], end[10:]), PrunedCoordinates(0.3)
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_pruned_weights_get_no_gradient() -> None:
    student, end = torch.tensor([1.0, -1.0], requires_grad=True), torch.tensor([2.0, 2.0])
    relative_distance((student,), (torch.zeros(2),), (end,), PrunedCoordinates(0.3)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.tolist() == [-0.5, 0.0]


def test_nothing_kept_is_no_loss() -> None:
    one = torch.ones(3)
    assert relative_distance((one,), (0 * one,), (-one,), PrunedCoordinates(0.1)).item() == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_thresholds_that_are_no_similarity_are_refused(threshold: float) -> None:
    with pytest.raises(SettingsError, match="threshold"):
        PrunedCoordinates(threshold)
