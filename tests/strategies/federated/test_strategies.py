"""Strategies by name: each learns on real data, and each setting is known and checked."""

from __future__ import annotations

import pytest

from fedcl_distill.data import Splits, partition
from fedcl_distill.errors import SettingsError
from federations import quick, run, serve
from simulations.settings import FederatedSettings
from strategies.federated import (
    InProcessGrid,
    list_strategies,
    make_client_app,
)
from strategies.federated.client import partition_of

ON_FEATURES = ("feature-sums", "fedncm", "fed3r", "afl", "fedcgs", "fedpft")  # which have tests of their own
ON_IMAGES = [name for name in list_strategies() if name not in ON_FEATURES]
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


@pytest.mark.parametrize("strategy", ON_IMAGES)
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
        result = serve(grid, settings, digits.test)
    assert result.rejections == ()
    assert result.accuracy > 0.5 > 0.3 > result.rounds[0].accuracy


@pytest.mark.parametrize(
    ("strategy", "chosen", "reason"),
    [
        ("fedavg", {"mu": 0.1}, "'fedavg': unknown setting 'mu'; .*known: augment, batch_size, client_share"),
        ("fedprox", {"nu": 0.1}, "unknown setting 'nu'; did you mean 'mu'"),
        ("fedprox", {"mu": "much"}, "FedProx: mu must be a number at least 0, got 'much'"),
        ("fedprox", {"mu": -1.0}, "mu must be a number at least 0, got -1.0"),
        ("fedavg", {"learning_rate": -1.0}, "learning_rate must be a number more than 0, got -1.0"),
        ("fedavgm", {"server_momentum": 1.0}, "server_momentum must be a number at least 0 and less than 1"),
        ("fedadam", {"tau": 0}, "tau must be a number more than 0"),
        ("scaffold", {"server_learning_rate": True}, "server_learning_rate must be a number more than 0, got True"),
        ("topk", {"fraction": 2.0}, "fraction must be a number more than 0 and at most 1"),
        ("topk", {"download_bits": 5}, "download_bits must be one of 2, 4, 8, 32, got 5"),
        ("quantised", {"bits": 3}, "bits must be one of 2, 4, 8, got 3"),
        ("one-shot-average", {"epochs": 0}, "epochs must be a whole number at least 1"),
        ("one-shot-ensemble", {"weighting": "other"}, "weighting must be one of 'classes'"),
        ("one-shot", {"defence": "agrement"}, "unknown defence 'agrement'; did you mean 'agreement'"),
        ("statistics", {"veiws": 3}, "unknown setting 'veiws'; did you mean 'views'"),
        ("one-shoot", {}, "unknown strategy 'one-shoot'; did you mean 'one-shot'"),
    ],
)
def test_settings_are_checked_before_anyone_is_asked(strategy, chosen, reason):
    with pytest.raises(SettingsError, match=reason):
        quick(strategy=strategy, strategy_settings=chosen)


def test_scaffold_needs_momentum_below_one():
    with pytest.raises(SettingsError, match="local_momentum must be a number at least 0 and less than 1"):
        run(quick(strategy="scaffold", local_momentum=1.0))


def test_whole_numbers_are_taken_for_floats():
    assert run(quick(strategy="fedprox", strategy_settings={"mu": 0})).rejections == ()


def test_settings_travel_in_the_run_configuration():
    settings = quick(strategy="topk", strategy_settings={"fraction": 0.5, "error_feedback": False})
    assert FederatedSettings.from_run_config(settings.to_run_config()) == settings
