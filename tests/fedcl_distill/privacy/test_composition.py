"""Truth: a second accountant, in closed form, for every path by which something is released more than once.

Gaussian releases: δ(ε) = Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) with μ² = Σ 1/σ² (Balle and Wang 2018; Dong, Roth and
Su 2022). Sampled ones: Rényi divergence at whole orders (Mironov, Talwar and Zhang 2019, equation 7), an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import DependencyError, PrivacyError, SettingsError
from fedcl_distill.merging import WeightedSet, weighted_union
from fedcl_distill.methods.private import private_statistics, psg
from fedcl_distill.privacy import (
    Mechanism,
    NoiseSource,
    PrivacyBudget,
    PrivacyTarget,
    composed,
    for_group,
    guarantee_of,
    publicly_scaled,
    shared_records,
)
from fedcl_distill.statistics import Shares, StatisticsSpec, add_up_noisy, class_statistics, with_noise
from strategies.continual import ContinualSettings, PrivateMemory
from strategies.continual.memory_registry import named_memory

DELTA = 1e-5
DATA = publicly_scaled(blobs(classes=2, per_class=200))
SMALL = {"views": 2, "dimensions": 8, "architecture": "convnet:width=4", "moments": 0}


def gaussian_epsilon(noises: Sequence[float], delta: float = DELTA) -> float:
    """The least ε of Gaussian releases with these multipliers, all on the same records."""
    mu = math.sqrt(sum(noise**-2 for noise in noises))

    def excess(epsilon: float) -> float:
        gain = math.exp(log_ndtr(mu / 2 - epsilon / mu))
        return gain - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)) - delta

    return float(brentq(excess, 1e-9, 600))


def sampled_epsilon(noise: float, rate: float, queries: int, delta: float = DELTA) -> float:
    """An upper bound on ε of so many sampled Gaussian queries."""
    best = math.inf
    for order in range(2, 200):
        k = torch.arange(order + 1).double().numpy()
        binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        logs = binomial + (order - k) * math.log1p(-rate) + k * math.log(rate) + k * (k - 1) / (2 * noise**2)
        rdp = queries * float(logsumexp(logs)) / (order - 1)
        best = min(best, rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return best


def close_above(found: float, truth: float) -> None:
    assert truth <= found * (1 + 1e-6)
    assert found <= truth * 1.02 + 5e-3


@pytest.mark.parametrize("epsilons", [(1.0,) * 4, (0.5, 2.0), (8.0, 1.0, 0.3)])
def test_gaussian_releases_compose_as_the_closed_form_has_it(epsilons: tuple[float, ...]) -> None:
    parts = [PrivacyTarget(one).guarantee(1.0) for one in epsilons]
    found = composed(parts)
    assert found is not None
    truth = gaussian_epsilon([one.mechanism.noise_multiplier for one in parts])
    close_above(found.epsilon, truth)
    assert found.deviation == pytest.approx(min(one.deviation for one in parts))
    if len(set(epsilons)) == 1:
        assert found.epsilon == pytest.approx(2.15, abs=0.05)
    nested = composed([composed(parts[:2]), *parts[2:]])
    assert nested is not None
    assert nested.epsilon == pytest.approx(found.epsilon, rel=0.01)


def test_other_compositions_add_up() -> None:
    exact, sampled = PrivacyTarget(1.0).guarantee(1.0), PrivacyTarget(2.0).guarantee(0.1, sampling_rate=0.1, queries=9)
    mixed = composed([exact, sampled])
    assert mixed is not None
    assert (mixed.epsilon, mixed.delta) == (3.0, 2e-5)
    twice = composed([sampled, sampled])
    assert twice is not None
    assert (twice.mechanism.queries, twice.mechanism.sampling_rate) == (18, 0.1)
    assert 2.0 < twice.epsilon <= sampled_epsilon(twice.mechanism.noise_multiplier, 0.1, 18) + 0.01
    assert composed([]) is None
    assert composed([exact, None]) is None
    assert composed([exact]) == exact


def test_without_the_accountant_epsilons_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    part = PrivacyTarget(1.0).guarantee(1.0)

    def missing() -> None:
        raise DependencyError("not installed")

    monkeypatch.setattr("fedcl_distill.privacy.accounting._library", missing)
    found = composed([part] * 3)
    assert found is not None
    assert (found.epsilon, found.delta) == (3.0, pytest.approx(3e-5))


def test_a_group_changes_a_sum_by_all_its_records() -> None:
    one = PrivacyTarget(1.0).guarantee(1.0)
    for size in (2, 5):
        close_above(for_group(one, size).epsilon, gaussian_epsilon([one.mechanism.noise_multiplier / size]))
    assert for_group(one, 1) == one
    for size, guarantee in ((0, one), (2, PrivacyTarget(1.0).guarantee(1.0, sampling_rate=0.5))):
        with pytest.raises(SettingsError):
            for_group(guarantee, size)


def memory(ledger: PrivacyBudget | None = None, **own: object) -> PrivateMemory:
    method = private_statistics(epsilon=1.0, ledger=ledger, **SMALL)  # type: ignore[arg-type]
    return PrivateMemory(2_000, method=method, budget=Budget(steps=1), **own)  # type: ignore[arg-type]


def test_a_memory_fed_the_same_records_four_times_says_so(tmp_path: Path) -> None:
    """The attack: it said (1, 1e-5), and so did the ledger."""
    ledger = PrivacyBudget(tmp_path / "ledger", 2.5, DELTA)
    one = memory(ledger)
    for _ in range(4):
        one.add(DATA)
    noises = [each.mechanism.noise_multiplier for each in ledger.releases()]
    assert len(noises) == 4
    close_above(ledger.spent(), gaussian_epsilon(noises))
    assert one.guarantee is not None
    close_above(one.guarantee.epsilon, gaussian_epsilon(noises))
    one.add(DATA)
    with pytest.raises(PrivacyError):
        one.add(DATA)


def test_a_memory_of_other_records_each_time_has_the_guarantee_of_one(tmp_path: Path) -> None:
    ledger = PrivacyBudget(tmp_path / "ledger", 1.1, DELTA)
    one, parts = memory(ledger, disjoint=True), [DATA.subset(torch.arange(start, 400, 2)) for start in (0, 1)]
    assert shared_records(parts) == 0
    for part in parts:
        one.add(part)
    assert one.guarantee is not None
    assert one.guarantee.epsilon == 1.0
    assert shared_records([*parts, parts[0].subset(torch.arange(3))]) == 3


def test_no_stream_of_domains_is_disjoint() -> None:
    with pytest.raises(SettingsError, match="come back"):
        named_memory("private:disjoint=true", ContinualSettings(scenario="domain"), 5_000)


def test_sums_and_sets_of_many_add_up_unless_stated() -> None:
    spec = StatisticsSpec(seed=0, kind="direction", views=2, dimensions=8, architecture="convnet:width=4", moments=0)
    exact = class_statistics(DATA, spec)
    noisy = [with_noise(exact, PrivacyTarget(1.0), Shares(), NoiseSource.fresh()) for _ in range(3)]
    assert noisy[0].guarantee is not None
    truth = gaussian_epsilon([noisy[0].guarantee.mechanism.noise_multiplier] * 3)
    total, stated = add_up_noisy(noisy), add_up_noisy(noisy, disjoint=True)
    assert total.guarantee is not None
    assert stated.guarantee is not None
    close_above(total.guarantee.epsilon, truth)
    assert stated.guarantee.epsilon == 1.0
    assert total.deviations() == stated.deviations()  # the noise is what it is
    method = private_statistics(epsilon=1.0, **SMALL)  # type: ignore[arg-type]
    sets = [method.distil(DATA, 1, seed=seed, budget=Budget(steps=1)) for seed in range(3)]
    parts = [WeightedSet.standing_for(one, 1.0) for one in sets]
    for disjoint, expected in ((False, truth), (True, 1.0)):
        found = guarantee_of(weighted_union(parts, disjoint=disjoint).synthetic.provenance)
        assert found is not None
        close_above(found.epsilon, expected)


@pytest.mark.parametrize(("rate", "queries"), [(0.01, 1000), (0.2, 40), (0.9, 3)])
def test_psg_pays_no_less_than_sampling_costs(rate: float, queries: int) -> None:
    """Between the closed forms of records that are always in and of Rényi divergences."""
    noise = PrivacyTarget(2.0).guarantee(1.0, sampling_rate=rate, queries=queries).mechanism.noise_multiplier
    assert sampled_epsilon(noise, rate, queries) >= 2.0 * 0.995
    assert queries > 100 or gaussian_epsilon([noise] * queries) > 2.0


def test_runs_that_are_repeated_are_all_in_the_ledger(tmp_path: Path) -> None:
    ledger = PrivacyBudget(tmp_path / "ledger", 20.0, DELTA)
    gradients = {"expected_batch": 40, "architecture": "convnet:width=4", "ledger": ledger}
    for seed in range(2):
        psg(epsilon=2.0, **gradients).distil(DATA, 1, seed=seed, budget=Budget(steps=2))  # type: ignore[arg-type]
        private_statistics(epsilon=2.0, ledger=ledger, **SMALL).distil(DATA, 1, seed=0, budget=Budget(steps=1))  # type: ignore[arg-type]
    kinds = [one.mechanism for one in ledger.releases()]
    assert [one.queries for one in kinds] == [2, 1, 2, 1]
    assert all(isinstance(one, Mechanism) for one in kinds)
    whole = gaussian_epsilon([kinds[1].noise_multiplier] * 2)
    assert whole < ledger.spent() < whole + 2 * 2.0
