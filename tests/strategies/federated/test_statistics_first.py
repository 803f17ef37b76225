"""Statistics first against the pooled data, and against nodes that send what they should not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedcl_distill.data import Normalisation
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import (
    StatisticsSpec,
    Sums,
    class_statistics,
    decode_statistics,
    distil_statistics,
    encode_statistics,
)
from federations import data_and_test, quick, run

BAD = 2
SMALL = {"views": 4, "architecture": "mlp:width=8", "dimensions": 6}


def settings(**changes):
    return quick(**{"strategy": "statistics", "strategy_settings": SMALL, "distil_steps": 8, "bits": 32, **changes})


def _samples(result):
    return result.synthetic.inputs()


@pytest.fixture(scope="module")
def pooled():
    train, _ = data_and_test()
    seed = derive_seed(0, "statistics")
    statistics = class_statistics(train, StatisticsSpec(**SMALL, seed=seed))
    distilled = distil_statistics(
        statistics, 2, seed=derive_seed(0, "distil statistics"), budget=Budget(steps=8), absent_classes="skip"
    )
    return distilled.inputs()


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.01", "classes:1"])
def test_the_result_is_that_of_the_pooled_data(how, pooled):
    result = run(settings(partition=how, clients=3))
    assert result.rejections == ()
    torch.testing.assert_close(_samples(result), pooled, rtol=1e-3, atol=1e-3)


def test_a_model_is_trained_on_it():
    result = run(settings(distil_steps=100))
    assert result.accuracy > 0.9
    assert result.as_record()["synthetic_samples"] == 6


def test_fewer_bits_are_fewer_bytes_up():
    bytes_up = [run(settings(bits=bits)).rounds[-1].bytes_up for bits in (8, 16, 32)]
    values = 4 * 3 * (4 * 6 + 6 + 21)  # clients · classes · numbers of a class
    assert bytes_up[2] - bytes_up[1] == pytest.approx(2 * values, abs=600)
    assert bytes_up[1] - bytes_up[0] == pytest.approx(values, abs=600)


def test_same_seed_same_bytes_and_another_seed_others(untouched_global_rng):
    before = random.getstate()
    one, again, other = (run(settings(seed=seed)) for seed in (3, 3, 4))
    assert random.getstate() == before
    assert one.ledger.entries == again.ledger.entries
    assert torch.equal(_samples(one), _samples(again))
    assert not torch.equal(_samples(one), _samples(other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 2}, "one round"),
        ({"byte_budget": 1000}, "byte budget"),
        ({"bits": 4}, "bits"),
        ({"strategy_settings": {"networks": 3}}, "unknown setting 'networks'"),
        ({"strategy_settings": {"seed": 3}}, "leave their seed out"),
        ({"strategy_settings": {"learning_rate": "high"}}, "learning_rate"),
        ({"strategy_settings": {"parameterization": "other"}}, "unknown parameterization"),
        ({"strategy_settings": {"views": 0}}, "views"),
        ({"strategy_settings": {"architecture": "convnet:width=4"}}, "needs images"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anyone_is_asked(changes, message):
    with pytest.raises(SettingsError, match=message):
        run(settings(**changes))


def _payload(reply):
    return reply.content["statistics"]["payload"].numpy().tobytes()


def _send_bytes(reply, payload, **facts):
    metrics = MetricRecord({**reply.content["metrics"], **facts})
    record = ArrayRecord({"payload": Array(np.frombuffer(payload, np.uint8))})
    reply.content = RecordDict({"statistics": record, "metrics": metrics})
    return reply


def _send(reply, statistics):
    return _send_bytes(reply, encode_statistics(statistics, 32))


def _remeasured(reply, spec=None, **traits):
    train, _ = data_and_test()
    few = train.subset(torch.arange(reply.content["metrics"]["num-examples"]))
    few = few.with_spec(**traits)
    return _send(reply, class_statistics(few, spec or decode_statistics(_payload(reply)).spec))


def another_seed(reply):
    return _remeasured(reply, StatisticsSpec(**SMALL, seed=1))


def another_normalisation(reply):
    return _remeasured(reply, normalisation=Normalisation((0.0,) * 6, (1.0,) * 6))


def other_classes(reply):
    return _remeasured(reply, class_names=("a", "b", "c"))


def _scaled(reply, name, factor):
    statistics = decode_statistics(_payload(reply))
    one = statistics.sums[name]
    changed = {**statistics.sums, name: Sums(one.counts, one.values * factor)}
    return _send(reply, type(statistics)(statistics.spec, statistics.domain, changed))


def huge_features(reply):
    return _scaled(reply, "features", 1e30)


def huge_moments(reply):
    return _scaled(reply, "moments", 1e6)


def more_samples_than_said(reply):
    return _send_bytes(reply, _payload(reply), **{"num-examples": 1})


def truncated(reply):
    return _send_bytes(reply, _payload(reply)[:-3])


def far_too_large(reply):
    return _send_bytes(reply, bytes(10**7))


def no_statistics(reply):
    reply.content = RecordDict({"metrics": reply.content["metrics"]})
    return reply


CASES = [
    (another_seed, "another specification"),
    (another_normalisation, "another kind of data"),
    (other_classes, "another kind of data"),
    (huge_features, "means of features span"),
    (huge_moments, "means of moments span"),
    (more_samples_than_said, "the node says it has 1"),
    (truncated, "truncated"),
    (far_too_large, "at most"),
    (no_statistics, "no arrays 'statistics'"),
]


@pytest.fixture(scope="module")
def without_the_bad_node():
    return run(settings(), unavailable=[BAD])


@pytest.mark.parametrize(("tamper", "reason"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_one_bad_node_is_turned_away(tamper, reason, without_the_bad_node):
    result = run(settings(), tampers={BAD: tamper})
    (rejection,) = result.rejections
    assert rejection.node == 1000 + BAD
    assert reason in rejection.reason
    assert torch.equal(_samples(result), _samples(without_the_bad_node))
