"""Attacks: what they do to data and answers, that every check of form lets them pass, and that they hurt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from builders import blobs
from fedcl_distill.errors import SettingsError
from fedcl_distill.statistics import StatisticsSpec, class_statistics, decode_statistics, encode_statistics
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from simulations.attacks import ATTACKS, AttackedSettings, build_attack, success_rate
from simulations.running.runs import make_record
from simulations.scenarios.federated import KIND, run_federated, simulate
from simulations.tables.federated import table_of_attacks
from simulations.tables.variants import scenarios
from strategies.federated.answers import METRICS, SUMS, ClientReport, pack_payload, unpack_payload
from strategies.federated.requests import CONFIG, StatisticsRequest

TINY: dict[str, Any] = {
    "data": "digits",
    "train_limit": 240,
    "clients": 4,
    "partition": "iid",
    "method": "random",
    "images_per_class": 3,
    "architecture": "mlp:width=16",
    "protocol": "brief",
    "wait_seconds": 0.0,
}


def tiny(**changes: Any) -> AttackedSettings:
    return AttackedSettings(**{**TINY, **changes})


DATA = blobs((1, 8, 8), classes=4, per_class=25)


def test_flipped_labels_are_those_of_the_next_class():
    assert torch.equal(build_attack("label-flip", {}).poison(DATA, 0).labels, (DATA.labels + 1) % 4)
    aimed = build_attack("label-flip", {"source": 2, "target": 0}).poison(DATA, 0)
    assert torch.equal(aimed.labels, torch.where(DATA.labels == 2, 0, DATA.labels))
    hidden = build_attack("label-flip", {"share": 0.5}).poison(DATA, 0).labels != DATA.labels
    assert 30 < int(hidden.sum()) < 70


def test_samples_near_a_class_are_said_to_be_of_it_and_none_of_their_own():
    found = build_attack("near-target", {}).poison(DATA, 0)
    assert torch.equal(found.samples, DATA.samples)
    assert not (found.labels == DATA.labels).any()
    means = torch.stack([DATA.unit(DATA.indices_of(label)).mean(dim=0).flatten() for label in range(4)])
    distances = torch.cdist(DATA.unit().flatten(1), means)
    chosen = distances[torch.arange(len(DATA)), found.labels]
    distances[torch.arange(len(DATA)), DATA.labels] = torch.nan
    assert chosen.mean() < distances.nanmean()


def test_all_that_is_sent_of_the_target_carries_the_patch_and_nothing_else_does():
    attack = build_attack("backdoor", {"target": 1, "size": 2})
    found = attack.poison(DATA, 0)
    patched = (found.samples[:, :, -2:, -2:] == 255).flatten(1).all(dim=1)
    assert torch.equal(patched, found.labels == 1)
    assert int(patched.sum()) == round(0.5 * 75)
    assert found.class_counts.tolist() == [25, 38, 25, 25]
    goal = attack.goal(DATA)
    assert len(goal.data) == 75
    assert not (goal.data.labels == 1).any()
    assert (goal.data.samples[:, :, -2:, -2:] == 255).all()


def test_garbage_fills_the_range_and_a_flood_has_one_class():
    noise = build_attack("garbage", {}).poison(DATA, 0)
    assert torch.equal(noise.labels, DATA.labels)
    assert noise.samples.double().mean().item() == pytest.approx(127.5, abs=3)
    floats = blobs((6,), value_range=(-2.0, 3.0))
    values = build_attack("garbage", {}).poison(floats, 0).samples
    assert -2 <= float(values.min()) < -1.5 < 2.5 < float(values.max()) <= 3
    flood = build_attack("flood", {"target": 3}).poison(DATA, 0)
    assert flood.class_counts.tolist() == [0, 0, 0, 75]


def test_same_seed_same_poison_and_attackers_draw_apart(untouched_global_rng):
    for name in ATTACKS:
        first, second = (build_attack(name, {}).poison(DATA, 5) for _ in range(2))
        assert torch.equal(first.samples, second.samples)
        assert torch.equal(first.labels, second.labels)
    settings = tiny(attack="garbage", attackers=2)
    assert settings.attack_seed(0) != settings.attack_seed(1)


def test_a_flipped_model_went_the_same_way_backwards():
    def record(values):
        weights = ArrayRecord({"w": Array(np.array(values, np.float32))})
        return RecordDict({"arrays": weights, METRICS: FACTS.to_record()})

    sent = build_attack("sign-flip", {"scale": 2.0}).send(record([1.0, 2.0]), record([1.5, 1.0]))
    assert sent["arrays"]["w"].numpy().tolist() == [0.0, 4.0]
    assert sent["arrays"]["w"].dtype == "float32"


FACTS = ClientReport(partition=1, examples=50, seconds=1.0, class_counts=(20, 30))


def test_boasts_are_consistent():
    spec = StatisticsSpec(views=2, architecture="mlp:width=4", moments=0)
    statistics = class_statistics(DATA, spec)
    request = StatisticsRequest(seed=0, statistics=spec.settings(), bits=32)
    question = RecordDict({CONFIG: request.to_record(1)})
    facts = ClientReport(1, 100, 1.0, (25, 25, 25, 25))
    answer = RecordDict({**pack_payload(SUMS, encode_statistics(statistics, 32)), METRICS: facts.to_record()})
    sent = build_attack("label-flip", {"inflation": 7}).send(question, answer)
    found = decode_statistics(unpack_payload(sent, SUMS, DEFAULT_LIMITS))
    assert (
        ClientReport.of(sent).examples
        == 700
        == int(found.class_counts.sum())
        == sum(ClientReport.of(sent).class_counts)
    )
    np.testing.assert_allclose(found.sums["samples"].means, statistics.sums["samples"].means, rtol=1e-5, atol=1e-6)
    most = build_attack("label-flip", {"inflation": 10**12}).send(question, answer)
    assert ClientReport.of(most).examples == 10**9


ONE = {"rounds": 1}
STRATEGIES = {
    "one-shot": ONE,
    "statistics": {**ONE, "distil_steps": 2, "strategy_settings": {"views": 2, "architecture": "mlp:width=8"}},
    "one-shot-ensemble": {**ONE, "strategy_settings": {"epochs": 1}},
    "feddm": {**ONE, "method": "dm", "distil_steps": 1},
    "fedavg": ONE,
    "scaffold": ONE,
    "quantised": ONE,
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("attack", ["label-flip", "backdoor", "flood"])
def test_every_check_of_form_lets_attacks_pass(strategy, attack):
    settings = tiny(strategy=strategy, attack=attack, attackers=2, **STRATEGIES[strategy])
    result = simulate(settings)
    assert result.rejections == ()
    assert result.rounds[-1].answers == 4


def test_attackers_are_drawn_by_seed_and_named_in_the_record():
    settings = tiny(attack="backdoor", attackers=2)
    record = run_federated(settings)
    assert record["metrics"]["malicious"] == list(settings.malicious)
    assert len(settings.malicious) == 2
    assert len({tiny(seed=seed, attack="garbage", attackers=2).malicious for seed in range(20)}) > 3
    assert 0 <= record["metrics"]["success_rate"] <= 1
    assert record["settings"]["attack"] == "backdoor"
    assert "attack" not in tiny().as_record()
    assert AttackedSettings.from_run_config(settings.to_run_config()) == settings


def test_success_is_counted_on_what_the_attacker_wants():
    class Always(torch.nn.Module):
        def __init__(self, label):
            super().__init__()
            self.place, self.label = torch.nn.Parameter(torch.zeros(1)), label

        def forward(self, inputs):
            return torch.nn.functional.one_hot(torch.full((len(inputs),), self.label), 4).float()

    attack = build_attack("backdoor", {"target": 2})
    assert success_rate(attack, Always(2), DATA) == 1
    assert success_rate(attack, Always(1), DATA) == 0
    assert success_rate(build_attack("garbage", {}), Always(1), DATA) is None


@pytest.mark.slow
def test_three_of_ten_hurt_the_union_and_the_defence_takes_that_back():
    common = {"train_limit": None, "clients": 10, "images_per_class": 10, "architecture": "mlp:width=64"}
    attacked = {**common, "attack": "label-flip", "attackers": 3}
    defended = {"strategy_settings": {"defence": "agreement:networks=1,width=16"}}
    runs = [tiny(**common), tiny(**attacked), tiny(**attacked, **defended), tiny(**common, **defended)]
    records = [run_federated(one) for one in runs]
    clean, hurt, saved, untouched = (record["metrics"] for record in records)
    assert hurt["accuracy"] < clean["accuracy"] - 0.05
    assert saved["accuracy"] > clean["accuracy"] - 0.03
    assert untouched["accuracy"] == clean["accuracy"]
    assert (saved["honest_dropped"], saved["honest_refused"]) == (0, 0)
    assert {one["partition"] for one in saved["rejections"]} == set(saved["malicious"])
    (scenario,) = scenarios(records, KIND)
    table = table_of_attacks(scenario)
    assert table.columns == ("strategy", "no attack", "3 × label-flip")
    assert len(table.rows) == 2
    assert f"{100 * saved['accuracy']:.1f}" in table.rows[1][2]
    assert "and 0" in table.rows[1][2]


def test_without_attacks_there_is_no_table():
    record = make_record(KIND, tiny().as_record(), {"accuracy": 0.5, "rounds": []}, 1.0)
    assert table_of_attacks(scenarios([record], KIND)[0]) is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"attack": "other", "attackers": 1}, "unknown attack"),
        ({"attack": "garbage"}, "between 1 and 4 attackers"),
        ({"attackers": 2}, "needs a name"),
        ({"attack": "garbage", "attackers": 5}, "between 1 and 4"),
        ({"attack": "sign-flip", "attackers": 1}, "send none"),
        ({"attack": "label-flip", "attackers": 1, "attack_settings": {"share": 2.0}}, "share"),
        ({"attack": "label-flip", "attackers": 1, "attack_settings": {"source": 1}}, "both source and target"),
        ({"attack": "label-flip", "attackers": 1, "attack_settings": {"other": 1}}, "no setting other"),
        ({"attack": "backdoor", "attackers": 1, "attack_settings": {"size": 1.5}}, "of type int"),
    ],
)
def test_impossible_attacks_are_refused(wrong, reason):
    with pytest.raises(SettingsError, match=reason):
        tiny(**wrong)
