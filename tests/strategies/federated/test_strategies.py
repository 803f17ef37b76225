"""Strategies by name: each learns on real data, and each setting is known and checked."""

from __future__ import annotations

import pytest

from fedcl_distill.data import Splits, partition
from fedcl_distill.errors import SettingsError
from federations import data_and_test, quick, run
from strategies.federated import (
    FederatedSettings,
    InProcessGrid,
    ReplyCollector,
    build_strategy,
    list_strategies,
    make_client_app,
    run_server,
)
from strategies.federated.client import partition_of
from strategies.federated.run import learner_for

ONE_ROUND = ("one-shot", "one-shot-average", "one-shot-ensemble", "statistics")
LOOKS_THROUGH_NETWORKS = ("feddm", "statistics")
CHOSEN = {
    "one-shot-average": {"epochs": 10},
    "one-shot-ensemble": {"epochs": 10},
    "fedadam": {"server_learning_rate": 0.05},
    "topk": {"fraction": 0.1},
    "krum": {"malicious": 0, "selected": 3},
    "bulyan": {"malicious": 0},
    "feddm": {"radius": 0.1},
    "dynafed": {"collect_rounds": 3, "distil_steps": 20},
    "statistics": {"views": 20, "architecture": "convnet:width=8"},
}


@pytest.mark.parametrize("strategy", list_strategies())
def test_it_learns_digits(strategy: str, digits: Splits) -> None:
    settings = FederatedSettings(
        strategy=strategy,
        strategy_settings=CHOSEN.get(strategy, {}),
        rounds=1 if strategy in ONE_ROUND else 6,
        method="dm" if strategy in LOOKS_THROUGH_NETWORKS else "random",
        method_settings={"learning_rate": 0.05} if strategy == "feddm" else {},  # trained MLPs have steep features
        distil_steps=20,
        images_per_class=3,
        clients=3,
        partition="dirichlet:0.5",
        architecture="mlp:width=32",
        local_learning_rate=0.05,
    )
    parts = partition(digits.train, settings.partition, settings.clients, seed=0)
    app = make_client_app(lambda context: parts[partition_of(context)])
    with InProcessGrid(app, settings.clients) as grid:
        result = run_server(grid, settings, digits.test)
    assert result.rejections == ()
    assert result.accuracy > 0.5 > 0.3 > result.rounds[0].accuracy


@pytest.mark.parametrize(
    ("strategy", "chosen", "reason"),
    [
        ("fedavg", {"mu": 0.1}, "no setting mu; it has: client_share"),
        ("fedprox", {"nu": 0.1}, "no setting nu; it has: mu"),
        ("fedprox", {"mu": "much"}, "mu must be of type float, got 'much'"),
        ("fedprox", {"mu": -1.0}, "mu must not be negative"),
        ("fedavgm", {"server_momentum": 1.0}, "server_momentum must be in"),
        ("fedadam", {"tau": 0}, "must be positive"),
        ("scaffold", {"server_learning_rate": True}, "of type float, got True"),
        ("topk", {"fraction": 2.0}, "fraction must be in"),
        ("topk", {"download_bits": 5}, "bits must be 2, 4 or 8"),
        ("quantised", {"bits": 3}, "bits must be 2, 4 or 8"),
        ("one-shot-average", {"epochs": 0}, "local_epochs must be at least 1"),
        ("one-shot-ensemble", {"weighting": "other"}, "unknown weighting"),
    ],
)
def test_settings_are_checked_before_anyone_is_asked(strategy, chosen, reason):
    settings = quick(strategy=strategy, strategy_settings=chosen)
    _, test = data_and_test()
    with pytest.raises(SettingsError, match=reason):
        build_strategy(settings, test, learner_for(settings, test), ReplyCollector(4))


def test_scaffold_needs_momentum_below_one():
    with pytest.raises(SettingsError, match="local_momentum"):
        run(quick(strategy="scaffold", local_momentum=1.0))


def test_whole_numbers_are_taken_for_floats():
    assert run(quick(strategy="fedprox", strategy_settings={"mu": 0})).rejections == ()


def test_settings_travel_in_the_run_configuration():
    settings = quick(strategy="topk", strategy_settings={"fraction": 0.5, "error_feedback": False})
    assert FederatedSettings.from_run_config(settings.to_run_config()) == settings
