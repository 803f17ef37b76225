"""Sets judged by each other, on real digits: attackers go, honest parties stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.data import partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.robust import Agreement
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import Random, select
from fedcl_distill.synthetic import SyntheticSet

MALICIOUS = (2, 5, 8)
JUDGE = Agreement(networks=1, width=16)


def sets_of(train, rule, seed=0, ipc=8):
    """What ten clients would send: a few samples of every class they hold."""
    found = []
    for number, part in enumerate(partition(train, rule, 10, seed=seed)):
        counts = part.class_counts.clamp(max=ipc).tolist()
        found.append(SyntheticSet.of_real(part.subset(select(part, counts, Random(), seed=number))))
    return found


def with_attackers(sets, lie):
    return [lie(one, number) if number in MALICIOUS else one for number, one in enumerate(sets)]


def flipped(one, number):
    return replace(one, labels=(one.labels + 1) % 10)


def half_flipped(one, number):
    return replace(one, labels=torch.where(torch.arange(len(one)) % 2 == 0, (one.labels + 1) % 10, one.labels))


def noise(one, number):
    pixels = torch.rand(one.inputs().shape, generator=generator_for(number, "noise"))
    return replace(one, arrays={"pixels": one.normalisation.apply(pixels)})


def one_class(one, number):
    """Everything honest but class 3, which holds sevens."""
    sevens = one.inputs()[one.labels == 7]
    pixels = one.inputs().clone()
    count = min(int((one.labels == 3).sum()), len(sevens))
    pixels[torch.nonzero(one.labels == 3).flatten()[:count]] = sevens[:count]
    return replace(one, arrays={"pixels": pixels})


def kept_shares(verdicts):
    return [float(verdict.kept.double().mean()) for verdict in verdicts]


@pytest.mark.parametrize("seed", [0, 1])
def test_without_attackers_everyone_stays(digits, seed):
    assert kept_shares(JUDGE.judge(sets_of(digits.train, "iid", seed), seed=seed)) == [1.0] * 10


@pytest.mark.parametrize("lie", [flipped, half_flipped, noise])
def test_three_attackers_of_ten_go_and_all_honest_parties_stay(digits, lie):
    verdicts = JUDGE.judge(with_attackers(sets_of(digits.train, "iid"), lie), seed=0)
    assert kept_shares(verdicts) == [0.0 if number in MALICIOUS else 1.0 for number in range(10)]
    for number in MALICIOUS:
        (drop,) = verdicts[number].drops
        assert (drop.label, drop.samples) == (None, len(verdicts[number].kept))
        assert "agree with the other sets" in drop.reason


def test_a_lie_about_one_class_costs_that_class_alone(digits):
    sets = with_attackers(sets_of(digits.train, "iid"), one_class)
    verdicts = JUDGE.judge(sets, seed=0)
    for number, (one, verdict) in enumerate(zip(sets, verdicts, strict=True)):
        dropped = one.labels[~verdict.kept]
        if number in MALICIOUS:
            assert len(dropped) >= 6
            assert set(dropped.tolist()) == {3}
            assert [drop.label for drop in verdict.drops] == [3]
        else:
            assert len(dropped) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_classes_are_with_few_parties_honest_ones_lose_little(digits, seed):
    sets = sets_of(digits.train, "dirichlet:0.1", seed)
    honest = JUDGE.judge(sets, seed=seed)
    assert sum(int((~one.kept).sum()) for one in honest) <= 0.05 * sum(map(len, sets))
    verdicts = JUDGE.judge(with_attackers(sets, flipped), seed=seed)
    lost = [int((~one.kept).sum()) for one in verdicts]
    assert sum(lost[number] for number in MALICIOUS) >= 0.8 * sum(len(sets[number]) for number in MALICIOUS)
    others = [number for number in range(10) if number not in MALICIOUS]
    assert sum(lost[number] for number in others) <= 0.15 * sum(len(sets[number]) for number in others)


def test_a_class_that_nobody_else_holds_is_kept(digits):
    sets = sets_of(digits.train, "iid")
    only = [one if n == 0 else one.subset(torch.nonzero(one.labels != 4).flatten()) for n, one in enumerate(sets)]
    assert JUDGE.judge(only, seed=0)[0].kept.all()


def test_two_parties_and_one_class_are_no_court(digits):
    first, second = sets_of(digits.train, "iid")[:2]
    assert all(one.kept.all() for one in JUDGE.judge([first, flipped(second, 1)], seed=0))
    single = [one.subset(torch.nonzero(one.labels == 1).flatten()) for one in (first, second)]
    assert all(one.kept.all() for one in JUDGE.judge(single, seed=0))


def test_same_seed_same_verdict_and_no_global_draws(digits, untouched_global_rng):
    sets = with_attackers(sets_of(digits.train, "dirichlet:0.5"), half_flipped)
    first, second = JUDGE.judge(sets, seed=3), JUDGE.judge(sets, seed=3)
    assert all(torch.equal(a.kept, b.kept) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("wrong", [{"tolerance": 1.5}, {"significance": 0.0}, {"networks": 0}, {"shrinkage": 1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match=f"Agreement: {next(iter(wrong))} "):
        Agreement(**wrong)
