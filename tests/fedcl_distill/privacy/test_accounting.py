"""Truth: the closed form of Balle and Wang (2018), published values, and how guarantees compose."""

from __future__ import annotations

import math
import sys

import pytest

from fedcl_distill.errors import DependencyError, PayloadError, SettingsError
from fedcl_distill.privacy import Guarantee, Mechanism, PrivacyTarget, epsilon_of, guarantee_of, noise_multiplier_for
from fedcl_distill.privacy.accounting import weakest

DELTA = 1e-5


def gaussian_delta(epsilon: float, noise: float) -> float:
    """Balle and Wang 2018, theorem 8, at sensitivity 1."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    return phi(0.5 / noise - epsilon * noise) - math.exp(epsilon) * phi(-0.5 / noise - epsilon * noise)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 10.0])
def test_noise_of_one_release_is_that_of_the_analytic_formula(epsilon: float) -> None:
    noise = noise_multiplier_for(epsilon, DELTA)
    assert gaussian_delta(epsilon, noise) <= DELTA  # never too little
    assert gaussian_delta(epsilon, noise * 0.995) > DELTA  # and hardly too much


@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_several_releases_are_one_with_less_noise(noise: float) -> None:
    # Gaussian mechanisms compose to one whose precision is the sum of theirs (Dong, Roth and Su 2022).
    together = epsilon_of([Mechanism(noise), Mechanism(noise, queries=3)], DELTA)
    assert together == pytest.approx(epsilon_of([Mechanism(noise / 2)], DELTA), rel=0.01)
    assert gaussian_delta(together, noise / 2) <= DELTA


# Published bounds, of accountants that a tighter one lowers by a quarter or so, not by more.
# Abadi et al. 2016, figure 2: q = 0.01, sigma = 4, 100 passes; their moments accountant, where strong composition had
# 9.34. Then MNIST as TensorFlow Privacy's tutorial trains on it, by Rényi accounting of its time.
PUBLISHED = [
    (4.0, 0.01, 10_000, 1.26),
    (1.3, 256 / 60_000, 15 * 60_000 // 256, 1.18),
    (1.1, 256 / 60_000, 60 * 60_000 // 256, 2.97),
    (0.7, 256 / 60_000, 45 * 60_000 // 256, 7.00),
]


@pytest.mark.parametrize(("noise", "rate", "queries", "published"), PUBLISHED)
def test_published_values_of_sampled_mechanisms(noise: float, rate: float, queries: int, published: float) -> None:
    assert 0.7 * published < epsilon_of([Mechanism(noise, rate, queries)], DELTA) < published


@pytest.mark.parametrize(("rate", "queries"), [(256 / 60_000, 500), (0.05, 100)])
def test_noise_of_sampled_queries_meets_its_target(rate: float, queries: int) -> None:
    noise = noise_multiplier_for(2.0, DELTA, rate, queries)
    assert 1.97 < epsilon_of([Mechanism(noise, rate, queries)], DELTA) <= 2.0


def test_sampling_and_fewer_queries_cost_less() -> None:
    all_of_them = epsilon_of([Mechanism(1.0, 1.0, 10)], DELTA)
    assert epsilon_of([Mechanism(1.0, 0.1, 10)], DELTA) < all_of_them
    assert epsilon_of([Mechanism(1.0, 1.0, 5)], DELTA) < all_of_them
    assert epsilon_of([], DELTA) == 0


@pytest.mark.parametrize(
    "bad",
    [(0.0, DELTA), (math.inf, DELTA), (1.0, 0.0), (1.0, 1.0), (math.nan, DELTA), (1.0, DELTA, 1.5), (500.0, DELTA)],
)
def test_targets_out_of_range(bad: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError):
        noise_multiplier_for(*bad)


@pytest.mark.parametrize("bad", [{"noise_multiplier": 0.0}, {"noise_multiplier": 1.0, "queries": 0}])
def test_mechanisms_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Mechanism(**bad)  # type: ignore[arg-type]


def test_without_the_library_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    with pytest.raises(DependencyError, match=r"fedcl-distill\[privacy\]"):
        noise_multiplier_for(1.2345, DELTA)


def guarantee(epsilon: float = 1.0, delta: float = DELTA, seeded: bool = False) -> Guarantee:
    return Guarantee(epsilon, delta, Mechanism(2.0, 0.5, 3), 0.1, "accountant", seeded)


def test_a_guarantee_survives_provenance() -> None:
    assert Guarantee.of(guarantee().as_record()) == guarantee()
    assert guarantee_of({"privacy": guarantee().as_record()}) == guarantee()
    assert guarantee_of({"privacy": guarantee(seeded=True).as_record()}) is None
    assert guarantee_of({}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": "1"},
        {"epsilon": math.nan},
        {"epsilon": True},
        {"delta": 2},
        {"unit": "user"},
        {"mechanism": []},
        {"mechanism": {"queries": 1}},
        {"more": 1},
        {"seeded": 0},
        {"accountant": 3},
        {"bound": None},
    ],
)
def test_a_damaged_guarantee_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PayloadError, match="no privacy guarantee"):
        Guarantee.of({**guarantee().as_record(), **changes})


def test_of_disjoint_records_the_weakest_holds() -> None:
    both = weakest([guarantee(1.0, 1e-5), guarantee(3.0, 1e-6)])
    assert both is not None
    assert (both.epsilon, both.delta) == (3.0, 1e-5)
    assert weakest([guarantee(), None]) is None
    assert weakest([]) is None
    mixed = weakest([guarantee(), guarantee(seeded=True)])
    assert mixed is not None
    assert not mixed.holds


def test_a_target_becomes_a_guarantee_that_the_accountant_confirms() -> None:
    made = PrivacyTarget(1.5).guarantee(0.1, sampling_rate=0.1, queries=20)
    assert made.holds
    assert made.bound == 0.1
    assert epsilon_of([made.mechanism], made.delta) <= made.epsilon == 1.5
    assert "dp-accounting" in made.accountant
