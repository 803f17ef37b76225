"""Runs under attack: who is rejected, what is bounded, and Flower's robust averages against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import decode, encode
from federations import data_and_test, quick, run
from plain_federated import parts_of, start_of, trained, vector_of
from strategies.federated import QuorumError
from strategies.federated.aggregation import capped_by_class
from strategies.federated.answers import METRICS, SYNTHETIC, pack_payload

BAD = (1, 4)
DEFENCE = "agreement:networks=1,width=8"


def relabelled(reply):
    """All labels one class on; everything else as it was."""
    synthetic = decode(reply.content[SYNTHETIC]["payload"].numpy().tobytes())
    payload = encode(replace(synthetic, labels=(synthetic.labels + 1) % 3), 8, provenance=False)
    reply.content = RecordDict({**pack_payload(SYNTHETIC, payload), METRICS: reply.content[METRICS]})
    return reply


def boasting(reply):
    reply.content[METRICS]["num-examples"] *= 10**6
    return reply


def defended(tampers=None, strategy="one-shot", rounds=1, **own):
    chosen = {"defence": DEFENCE, **own}
    settings = quick(strategy=strategy, rounds=rounds, clients=7, images_per_class=5, strategy_settings=chosen)
    return run(settings, tampers)


def test_attackers_are_turned_away_by_name_and_reason_and_the_rest_is_as_if_they_were_not_there(caplog):
    result = defended(dict.fromkeys(BAD, relabelled))
    assert [(one.partition, one.node, one.label) for one in result.rejections] == [
        (number, 1000 + number, None) for number in BAD
    ]
    assert all("agree with the other sets" in one.reason for one in result.rejections)
    assert result.as_record()["rejections"][0]["samples"] == 15
    assert len(result.synthetic) == 72
    assert result.rounds[-1].answers == 5
    assert "node 1001 (partition 1)" in caplog.text
    assert result.synthetic.provenance["union_of"] == [0, 2, 3, 5, 6]
    without = run(quick(clients=7, images_per_class=5), unavailable=BAD)
    assert torch.equal(result.synthetic.inputs(), without.synthetic.inputs())
    assert result.accuracy == without.accuracy


def test_without_attackers_the_defence_changes_nothing():
    plain = run(quick(clients=7, images_per_class=5))
    found = defended()
    assert found.rejections == ()
    assert torch.equal(found.synthetic.inputs(), plain.synthetic.inputs())


def test_without_the_defence_attackers_are_believed():
    result = run(quick(clients=7, images_per_class=5), dict.fromkeys(BAD, relabelled))
    assert result.rejections == ()
    assert result.synthetic.provenance["union_of"] == list(range(7))


@pytest.mark.parametrize("own", [{"merge_to": 3, "merge_at": 6}, {"client_share": 0.3, "merge_to": 3, "merge_at": 6}])
def test_merging_goes_on_without_attackers(own):
    result = defended(dict.fromkeys(BAD, relabelled), **own)
    assert {one.partition for one in result.rejections} == set(BAD)
    assert result.synthetic.class_counts.tolist() == [3, 3, 3]
    assert result.clients_per_class == (5, 5, 5)


def test_feddm_is_defended_in_every_round():
    settings = quick(
        strategy="feddm",
        rounds=2,
        clients=7,
        method="dm",
        distil_steps=1,
        images_per_class=5,
        strategy_settings={"defence": DEFENCE},
    )
    result = run(settings, dict.fromkeys(BAD, relabelled))
    assert {(one.server_round, one.partition) for one in result.rejections} >= {(1, 1), (1, 4), (2, 1), (2, 4)}


def test_a_quorum_counts_those_that_are_left():
    settings = quick(clients=7, images_per_class=5, quorum=0.9, strategy_settings={"defence": DEFENCE})
    with pytest.raises(QuorumError, match=r"5 valid answers, 7 are needed.*agree with the other sets"):
        run(settings, dict.fromkeys(BAD, relabelled))


def test_a_boaster_counts_for_no_more_than_its_share():
    labels, owners = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 2, 0, 1])
    weights = torch.tensor([1.0, 1.0, 500.0, 500.0, 3.0, 3.0])
    found = capped_by_class(weights, labels, owners, 0.5)
    assert found.tolist() == pytest.approx([1, 1, 1, 1, 3, 3])
    own = {"size_exponent": 1.0, "client_share": 0.25, "defence": ""}
    settings = quick(clients=7, images_per_class=5)
    believed = run(replace(settings, strategy_settings={"size_exponent": 1.0}), {2: boasting})
    bounded = run(replace(settings, strategy_settings=own), {2: boasting})
    assert vector_of(believed).ne(vector_of(bounded)).any()


@pytest.mark.parametrize("own", [{"defence": "other"}, {"defence": "agreement:other=1"}, {"client_share": 0.0}])
def test_unknown_defences_and_shares_out_of_range_are_refused_before_anyone_is_asked(own):
    with pytest.raises(SettingsError, match=r"other|client_share"):
        run(quick(strategy_settings=own))


def _models(settings):
    train, _ = data_and_test()
    start = start_of(settings, train)
    return np.stack([trained(settings, part, i, 1, start).numpy() for i, part in enumerate(parts_of(settings, train))])


def _explode(reply):
    """As far away as a model may be: beyond 100 times the norm it is refused before any average sees it."""
    weights = {name: Array(50 * array.numpy()) for name, array in reply.content["arrays"].items()}
    reply.content = RecordDict({**reply.content, "arrays": ArrayRecord(weights)})
    return reply


def _krum(models):
    squared = ((models[:, None] - models[None]) ** 2).sum(axis=2)
    return models[np.sort(squared, axis=1)[:, 1 : len(models) - 1 - 2 + 1].sum(axis=1).argmin()]


def _trimmed(models):
    return np.sort(models, axis=0)[2:-2].mean(axis=0)


@pytest.mark.parametrize(
    ("strategy", "own", "expected"),
    [
        ("median", {}, lambda models: np.median(models, axis=0)),
        ("trimmed-mean", {"trim": 0.3}, _trimmed),
        ("krum", {"malicious": 1}, _krum),
    ],
)
def test_robust_averages_are_what_their_papers_say_and_outlive_an_explosion(strategy, own, expected):
    settings = quick(strategy=strategy, clients=7, strategy_settings=own)
    result = run(settings)
    np.testing.assert_allclose(vector_of(result), expected(_models(settings)), rtol=1e-4, atol=1e-6)
    assert {array.dtype for array in result.weights.values()} == {"float32"}
    attacked = run(settings, {3: _explode})
    assert vector_of(attacked).abs().max() < 1
    assert vector_of(run(quick(strategy="fedavg", clients=7), {3: _explode})).abs().max() > 2


def test_bulyan_outlives_an_explosion_and_says_when_it_cannot():
    settings = quick(strategy="bulyan", clients=7, strategy_settings={"malicious": 1})
    assert vector_of(run(settings, {3: _explode})).abs().max() < 1
    with pytest.raises(QuorumError, match="6 valid answers, Bulyan needs 7"):
        run(settings, unavailable=[2])
    with pytest.raises(SettingsError, match="at least 4"):
        run(quick(strategy="bulyan", clients=6))


@pytest.mark.parametrize(
    ("strategy", "own"), [("krum", {"malicious": 3}), ("krum", {"selected": 9}), ("trimmed-mean", {"trim": 0.5})]
)
def test_robust_averages_refuse_what_they_cannot_promise(strategy, own):
    with pytest.raises(SettingsError, match=r"needs at least|selected|trim"):
        run(quick(strategy=strategy, clients=7, strategy_settings=own))


def test_statistics_take_robust_settings():
    plain = quick(strategy="statistics", clients=4, images_per_class=2, distil_steps=2)
    own = {"views": 2, "architecture": "mlp:width=8"}
    robust = {**own, "centre": "geometric-median", "count_share": 0.3}
    first = run(replace(plain, strategy_settings=own))
    second = run(replace(plain, strategy_settings=robust))
    assert not torch.equal(first.synthetic.inputs(), second.synthetic.inputs())
    with pytest.raises(SettingsError, match="unknown centre"):
        run(replace(plain, strategy_settings={"centre": "other"}))
