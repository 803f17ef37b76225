"""Settings of simulated federations: checked where they are written, and those of the Flower app are the same."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fedcl_distill.errors import SettingsError
from simulations.attacks import AttackedSettings
from simulations.settings import FederatedContinualSettings, FederatedData, FederatedSettings
from strategies.federated import FedAvg, FederatedStatistics, OneShot

ROOT = Path(__file__).parent.parent.parent


def test_the_flower_apps_configuration_names_every_setting() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    own = {"results-file", "checkpoint-file"}
    assert config.keys() - own == AttackedSettings().to_run_config().keys()
    settings = AttackedSettings.from_run_config({key: value for key, value in config.items() if key not in own})
    assert settings.quorum == 1.0  # whoever starts it by hand learns of a node that is missing
    settings.build_strategy()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "dmm"}, "unknown method 'dmm'; did you mean 'dm'"),
        ({"strategy": "fedavgg"}, "unknown strategy 'fedavgg'; did you mean 'fedavg'"),
        ({"partition": "dirichlet"}, "dirichlet"),
        ({"partition": "dirichlit:0.1"}, "dirichlit"),
        ({"method_settings": {"steps_per_veiw": 5}}, "steps_per_veiw"),
        ({"images_per_class": "5"}, "images_per_class must be a whole number at least 1, got '5'"),
        ({"strategy": "centralised", "strategy_settings": {"mu": 1.0}}, "has no settings"),
        ({"strategy": "statistics", "byte_budget": 1000}, "take no byte budget"),
        ({"clients": 0}, "clients must be a whole number at least 1"),
        ({"bits": 7}, "bits must be one of"),
        ({"validation_share": 1.0}, "validation_share must be"),
        ({"protocol": "quik"}, "quik"),
    ],
)
def test_what_is_wrong_is_said_on_construction(changes: dict, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        FederatedSettings(**changes)
    with pytest.raises(SettingsError, match=reason):
        replace(FederatedSettings(), **changes)


def test_strategies_get_what_concerns_them() -> None:
    settings = FederatedSettings(
        method="herding", images_per_class=3, distil_steps=7, bits=4, local_epochs=2, local_learning_rate=0.5
    )
    assert settings.build_strategy() == OneShot({"name": "herding"}, images_per_class=3, steps=7, bits=4)
    averaging = replace(settings, strategy="fedavg").build_strategy()
    assert isinstance(averaging, FedAvg)
    assert (averaging.local.epochs, averaging.local.learning_rate) == (2, 0.5)
    sums = replace(settings, strategy="statistics", bits=16, strategy_settings={"views": 4}).build_strategy()
    assert isinstance(sums, FederatedStatistics)
    assert (sums.features.views, sums.images_per_class, sums.steps, sums.bits) == (4, 3, 7, 16)
    assert replace(settings, strategy="quantised").build_strategy().bits == 8  # its own: those of a weight


def test_nodes_read_whose_data_are_where_and_nothing_else() -> None:
    config = FederatedContinualSettings(strategy="fedavg-replay", clients=3, seed=2).to_run_config()
    assert FederatedData.from_run_config(config) == FederatedData(clients=3, seed=2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scenario": "task"}, "scenario must be one of 'class', 'domain'"),
        ({"domain": "colour"}, "unknown domain 'colour'"),
        ({"stream": "lat"}, "unknown stream 'lat'; did you mean 'late'"),
        ({"stream": "late:clients=4"}, "at least one must be there"),
        ({"strategy": "feddm"}, "unknown strategy 'feddm'"),
        ({"strategy": "statistics", "strategy_settings": {"epsilon": 1.0, "kind": "direction"}}, "leave epsilon"),
        ({"strategy": "fedavg-replay", "local_augment": True}, "does not augment"),
    ],
)
def test_streams_are_checked_too(changes: dict, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        FederatedContinualSettings(**changes)
