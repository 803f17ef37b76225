"""Shares of noise under secure aggregation: the server learns a noisy total, and no node tells anything else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import PrivacyBudget, guarantee_of, publicly_scaled
from fedcl_distill.statistics import Shares, StatisticsSpec, add_up, class_statistics
from federations import quick, serve
from strategies.federated import InProcessGrid, QuorumError, ReplyCollector, ServerContext, make_client_app
from strategies.federated.answers import weights_of
from strategies.federated.client import partition_of

TRAIN, TEST = blobs(classes=3, per_class=200), blobs(classes=3, per_class=20, seed=1)
CLIENTS = 5
PRIVATE = {
    "kind": "direction",
    "views": 4,
    "architecture": "convnet:width=4",
    "dimensions": 8,
    "learning_rate": 10,
    "secure": True,
    "trust": "nodes",
    "epsilon": 4.0,
    "disjoint_clients": True,
    "max_samples": 200,
}


def settings(**changes: object):  # type: ignore[no-untyped-def]
    own = {**PRIVATE, **changes.pop("strategy_settings", {})}  # type: ignore[dict-item]
    base: dict[str, object] = {
        "strategy": "statistics",
        "clients": CLIENTS,
        "distil_steps": 8,
        "bits": 32,
        "architecture": "convnet:width=4",
    }
    return quick(**{**base, **changes}, strategy_settings=own)


def app_of(one, **more: object):  # type: ignore[no-untyped-def]
    parts = partition(TRAIN, one.partition, one.clients, seed=one.seed)
    return make_client_app(lambda context: parts[partition_of(context)], **more)  # type: ignore[arg-type]


def served(one, app):  # type: ignore[no-untyped-def]
    test = one.build_strategy().scaled(TEST)
    learner, collector = one.learner(test), ReplyCollector(one.clients, wait_seconds=0)
    strategy = one.build_strategy().server(ServerContext(test, learner, collector))
    with InProcessGrid(app, one.clients) as grid:
        strategy.start(grid, weights_of(learner.fresh()), 1)
    return strategy, collector


def test_the_total_has_the_noise_of_one_release_and_no_node_tells_its_size() -> None:
    one = settings()
    strategy, collector = served(one, app_of(one))
    noisy = strategy.noisy
    assert collector.rejections == []
    assert {(facts.examples, facts.seconds) for facts in collector.facts[1]} == {(1, 0.0)}
    assert noisy.variance == CLIENTS / 4  # two thirds of five are four
    spec = StatisticsSpec.of(strategy.request.statistics)
    exact = add_up(
        [
            class_statistics(publicly_scaled(part), spec)
            for part in partition(TRAIN, one.partition, one.clients, seed=one.seed)
        ]
    )
    wanted, plain = noisy.deviations(), noisy.guarantee.mechanism.noise_multiplier
    single = Shares().deviations(spec, noisy.domain, plain)
    assert wanted == pytest.approx({name: math.sqrt(1.25) * one for name, one in single.items()}, rel=0.01)
    for name, sums in noisy.sums.items():
        off = (sums - exact.sums[name].values) / wanted[name]
        assert 0.8 < off.std() < 1.2
    guarantee = guarantee_of(strategy.synthetic.provenance)
    assert guarantee is not None
    assert (guarantee.epsilon, guarantee.delta) == (4.0, 1e-5)


def test_a_lost_node_takes_its_share_and_no_more() -> None:
    one = settings()
    plain = app_of(one)

    def app(message, context):  # type: ignore[no-untyped-def]
        reply = plain(message, context)
        if message.metadata.message_type == "train.noised" and partition_of(context) == 2:
            raise RuntimeError("gone")
        return reply

    strategy, collector = served(one, app)
    assert [rejection.reason for rejection in collector.rejections] == ["RuntimeError: gone"]
    assert strategy.noisy.variance == 1.0


@pytest.mark.slow
def test_it_learns_what_a_trusted_server_learns() -> None:
    accuracies = []  # with little noise, for nodes draw it anew each time
    for own in ({}, {"secure": False, "trust": "server"}):
        one = settings(distil_steps=100, strategy_settings={"epsilon": 100.0, **own})
        with InProcessGrid(app_of(one), one.clients) as grid:
            accuracies.append(serve(grid, one, TEST).accuracy)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.15)
    assert accuracies[0] > 0.6


def test_a_node_with_a_budget_takes_part_until_it_is_spent(tmp_path: Path) -> None:
    one = settings()

    def load_budget(context):  # type: ignore[no-untyped-def]
        limit = 3.0 if partition_of(context) == 1 else 5.0
        return PrivacyBudget(tmp_path / f"{partition_of(context)}.json", epsilon=limit, delta=1e-5)

    app = app_of(one, load_budget=load_budget)
    strategy, collector = served(one, app)
    (rejection,) = collector.rejections  # of 3, 4 are not covered
    assert rejection.partition in (1, None)
    assert "PrivacyError" in rejection.reason
    assert strategy.noisy.variance == 1.0
    spent = [PrivacyBudget(tmp_path / f"{number}.json", epsilon=5.0, delta=1e-5).spent() for number in (0, 2, 3, 4)]
    assert spent == pytest.approx([4.0] * 4, rel=0.01)
    with pytest.raises(QuorumError):
        served(one, app)  # a second release is more than any of them has left


def test_a_node_with_a_budget_sends_no_sums_without_noise(tmp_path: Path) -> None:
    one = settings(strategy_settings={"epsilon": 0.0, "trust": "node"})
    budget = PrivacyBudget(tmp_path / "budget.json", epsilon=5.0, delta=1e-5)
    with pytest.raises(QuorumError):
        served(one, app_of(one, load_budget=lambda context: budget))
    assert budget.spent() == 0.0


@pytest.mark.parametrize(
    ("own", "bits", "match"),
    [
        ({"secure": False}, 32, "trust=nodes"),
        ({"trust": "node"}, 32, "trust=nodes"),
        ({"trust": "server"}, 32, "trust=nodes"),
        ({"trust": "nobody"}, 32, "trust must be"),
        ({"centre": "geometric-median"}, 32, "hold clients against each"),
        ({"kind": "mean"}, 32, "no bound"),
        ({"max_samples": 100_000}, 16, "more bits"),
        ({}, 8, "16 or 32 bits"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(own: dict[str, object], bits: int, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        served(settings(bits=bits, strategy_settings=own), app_of(settings()))


def test_words_hold_another_noise_each_time() -> None:
    one = settings()
    strategy, _ = served(one, app_of(one))
    again, _ = served(one, app_of(one))
    assert not torch.equal(strategy.noisy.counts, again.noisy.counts)
