"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import pytest

from strategies.continual import AccuracyMatrix

# Three experiences; the second is best remembered one stage after it was trained.
MATRIX = AccuracyMatrix(
    (
        (0.9, 0.1, 0.0),
        (0.6, 0.7, 0.2),
        (0.5, 0.8, 1.0),
    )
)


def test_average_accuracy_is_the_mean_of_the_last_row():
    assert MATRIX.average_accuracy == pytest.approx((0.5 + 0.8 + 1.0) / 3)


def test_each_stage_averages_what_was_seen_by_then():
    assert MATRIX.average_by_stage == pytest.approx((0.9, 0.65, 2.3 / 3))


def test_forgetting_is_best_earlier_minus_final_accuracy_without_the_last_experience():
    # Experience 0: max(0.9, 0.6) - 0.5; experience 1: 0.7 - 0.8, a gain.
    assert MATRIX.forgetting == pytest.approx((0.4 - 0.1) / 2)


def test_backward_transfer_is_final_minus_just_trained_accuracy():
    assert MATRIX.backward_transfer == pytest.approx(((0.5 - 0.9) + (0.8 - 0.7)) / 2)


def test_accuracy_before_an_experience_was_trained_counts_for_nothing():
    lucky_guess = AccuracyMatrix(((0.9, 0.99), (0.9, 0.5)))
    assert lucky_guess.forgetting == 0
    assert lucky_guess.average_accuracy == pytest.approx(0.7)


def test_a_single_experience_forgets_nothing():
    single = AccuracyMatrix(((0.75,),))
    assert (single.average_accuracy, single.forgetting, single.backward_transfer) == (0.75, 0.0, 0.0)


def test_forward_transfer_is_the_accuracy_before_training_over_that_of_an_untrained_model():
    matrix = AccuracyMatrix(MATRIX.rows, untrained=(0.3, 0.2, 0.05))
    assert matrix.forward_transfer == pytest.approx(((0.1 - 0.2) + (0.2 - 0.05)) / 2)
    assert MATRIX.forward_transfer is None


def test_experiences_that_come_in_another_order_count_from_when_they_were_learned():
    # Experience 1 comes first, experience 0 at the second of four rows, experience 2 never.
    matrix = AccuracyMatrix(
        ((0.2, 0.9, 0.0), (0.8, 0.7, 0.1), (0.6, 0.75, 0.1), (0.5, 0.6, 0.1)),
        untrained=(0.1, 0.0, 0.0),
        learned_at=(1, 0, 4),
    )
    assert matrix.average_by_stage == pytest.approx((0.9, 0.75, 0.675, 0.55))
    assert matrix.average_accuracy == pytest.approx(1.2 / 3)
    assert matrix.forgetting == pytest.approx(((0.8 - 0.5) + (0.9 - 0.6)) / 2)
    assert matrix.backward_transfer == pytest.approx(((0.5 - 0.8) + (0.6 - 0.9)) / 2)
    assert matrix.forward_transfer == pytest.approx(0.2 - 0.1)
