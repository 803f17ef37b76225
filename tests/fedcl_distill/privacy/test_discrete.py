"""Truth: the probabilities that the discrete Gaussian has, summed up by hand, and the Gaussian that it becomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import MAX_STEPS, NoiseSource, PrivacyTarget, discrete_gaussian, guarantee_on_grid

COUNT = 100_000


@pytest.mark.parametrize("deviation", [1, 2, 5])
def test_small_deviations_have_their_probabilities(deviation: int) -> None:
    values = discrete_gaussian(NoiseSource.seeded(deviation), deviation, (COUNT,), "draw").numpy()
    possible = np.arange(-12 * deviation, 12 * deviation + 1)
    weights = np.exp(-(possible**2) / (2 * deviation**2))
    expected = COUNT * weights / weights.sum()
    found = np.array([(values == value).sum() for value in possible])
    often = expected > 5
    chi_square = ((found - expected) ** 2 / expected)[often].sum()
    freedom = often.sum() - 1
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)
    assert found.sum() == COUNT


def test_the_largest_deviation_is_a_gaussian_in_all_its_bits() -> None:
    whole = discrete_gaussian(NoiseSource.fresh(), MAX_STEPS, (COUNT,), "draw")
    values = (whole.double() / MAX_STEPS).sort().values
    expected = 0.5 * torch.special.erfc(-values / math.sqrt(2))
    assert (expected - (torch.arange(COUNT) + 0.5) / COUNT).abs().max() < 2.2 / math.sqrt(COUNT)
    for bit in range(12):  # as often set as not
        assert ((whole >> bit) & 1).double().mean() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(COUNT))


def test_draws_are_named() -> None:
    source = NoiseSource.seeded(0)
    one = discrete_gaussian(source, 100, (3, 4), "a", 1)
    assert one.shape == (3, 4)
    assert one.dtype == torch.int64
    assert torch.equal(one, discrete_gaussian(source, 100, (3, 4), "a", 1))
    assert not torch.equal(one, discrete_gaussian(source, 100, (3, 4), "a", 2))
    assert discrete_gaussian(source, 100, (0,)).shape == (0,)


@pytest.mark.parametrize("deviation", [0, -1, 2.0, MAX_STEPS + 1, True])
def test_other_deviations_are_refused(deviation: object) -> None:
    with pytest.raises(SettingsError, match="deviation"):
        discrete_gaussian(NoiseSource.seeded(0), deviation, (1,))  # type: ignore[arg-type]


TARGET = PrivacyTarget(2.0)


def test_a_fine_grid_costs_next_to_nothing_and_a_coarse_one_is_counted() -> None:
    plain = TARGET.guarantee(1.0).mechanism
    fine = guarantee_on_grid(TARGET, {"a": 100}, {"a": 1.0}, {"a": 1e-6})
    assert fine.mechanism == plain
    assert 1.0 < fine.bound < 1.003  # a thousandth of epsilon, kept
    coarse = guarantee_on_grid(TARGET, {"a": 100}, {"a": 1.0}, {"a": 1e-3})
    assert coarse.bound == pytest.approx(fine.bound * (1 + 10 * 1e-3), rel=1e-4)  # √100 numbers, each off by a step


@pytest.mark.parametrize("steps", [{"a": 0.2}, {"a": 0.05}])
def test_a_grid_that_is_too_coarse_is_refused(steps: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="too coarsely"):
        guarantee_on_grid(TARGET, {"a": 100}, {"a": 1.0}, steps)


def test_what_whole_noise_differs_from_rounded_noise_is_within_the_stated_bound() -> None:
    """The theorem in privacy/discrete.py, number by number, against the error function in double precision."""
    deviation, x = 20.0, torch.arange(0, 200, dtype=torch.float64)
    weights = torch.exp(-(x**2) / (2 * deviation**2))
    exact = weights / (2 * weights.sum() - 1)

    def beyond(edge: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.special.erfc(edge / (deviation * math.sqrt(2)))

    rounded = beyond(x - 0.5) - beyond(x + 0.5)
    assert ((exact / rounded).log().abs() <= ((x / deviation) ** 2 + 1) / (24 * deviation**2) + 1e-9).all()
