"""Truth: sets made to be wrong in exactly one way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.synthetic import Expectation, decode, encode
from synthetic_builders import make_set

NORMALISATION = Normalisation((0.1307,), (0.3081,))


SPEC = DataSpec((1, 3, 5), ("0", "1"), NORMALISATION)


def expectation(spec: DataSpec = SPEC, **changes) -> Expectation:
    return Expectation(spec, **changes)


def unit_set(low: float, high: float, **changes):
    """A set whose unit values span exactly [low, high]."""
    unit = torch.linspace(low, high, 4 * 15).view(4, 1, 3, 5)
    return make_set(pixels=NORMALISATION.apply(unit), **changes)


def test_a_set_as_expected_is_welcome():
    expectation(max_samples=4, max_samples_per_class=2, slack=0.0).check(unit_set(0.0, 1.0))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (make_set((4, 1, 5, 3)), "samples have shape"),
        (make_set((4, 15), normalisation=Normalisation((0.0,) * 15, (1.0,) * 15)), "samples have shape"),
        (unit_set(0, 1, classes=3), "3 classes, expected 2"),
        (unit_set(0, 1, class_names=("1", "0")), "a class '1' where '0'"),
        (unit_set(0, 1, normalisation=Normalisation((0.1307,), (0.3082,))), "normalised with another"),
        (unit_set(0, 1, value_range=(0.0, 2.0)), "value range"),
        (make_set((0, 1, 3, 5)), "no samples"),
        (unit_set(-10.1, 1), r"samples span \[-10.1, 1\]"),
        (unit_set(0, 11.1), r"samples span \[0, 11.1\]"),
        (
            make_set(pixels=torch.full((4, 1, 3, 5), 3.4e38), normalisation=Normalisation((0.0,), (9e9,))),
            "normalised",
        ),
        (unit_set(0, 1, labels=torch.tensor([[0.0, 1.0]] * 3 + [[-0.1, 1.1]])), "soft labels span"),
        (unit_set(0, 1, labels=torch.tensor([[0.0, 1.0]] * 3 + [[1.0, 1.0]])), r"sums of soft labels span \[1, 2\]"),
        (unit_set(0, 1, labels=torch.tensor([[0.0, 1.0]] * 3 + [[0.0, 0.0]])), r"sums of soft labels span \[0, 1\]"),
    ],
)
def test_what_is_unexpected_is_named(one, said):
    with pytest.raises(PayloadError, match=said):
        expectation().check(one)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_probabilities_stay_welcome_in_every_depth(bits):
    labels = torch.rand(4, 2, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    one = decode(encode(unit_set(0, 1, labels=labels), bits))
    expectation().check(one)


def test_values_that_overflow_in_decoding_are_refused():
    normalisation = Normalisation((0.0,), (1e10,))
    one = make_set(pixels=torch.full((4, 1, 3, 5), 3e38), normalisation=normalisation)
    with pytest.raises(PayloadError, match="samples span"):
        expectation(replace(SPEC, normalisation=normalisation), slack=1e30).check(one)


def test_numbers_of_samples_are_bounded():
    with pytest.raises(PayloadError, match="4 samples, at most 3"):
        expectation(max_samples=3).check(unit_set(0, 1))
    with pytest.raises(PayloadError, match="3 samples of class '1', at most 2"):
        expectation(max_samples_per_class=2).check(unit_set(0, 1, labels=torch.tensor([1, 0, 1, 1])))


def test_slack_is_a_multiple_of_the_width():
    wide, spec = {"value_range": (-1.0, 3.0)}, replace(SPEC, value_range=(-1.0, 3.0))
    expectation(spec, slack=0.5).check(unit_set(-2.9, 4.9, **wide))
    with pytest.raises(PayloadError, match="samples span"):
        expectation(spec, slack=0.5).check(unit_set(-3.1, 4.9, **wide))


@pytest.mark.parametrize(
    "changes",
    [
        {"slack": -1.0},
        {"slack": float("nan")},
        {"max_samples": 0},
        {"max_samples_per_class": 0},
    ],
)
def test_expectations_that_cannot_be_met_are_refused(changes):
    with pytest.raises(SettingsError):
        expectation(**changes)
