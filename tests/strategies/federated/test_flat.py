"""Settings survive the way through flat records."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord

from fedcl_distill.errors import SettingsError
from simulations.settings import FederatedSettings
from strategies.federated import DistilRequest
from strategies.federated.requests import from_flat, to_flat

SETTINGS = FederatedSettings(
    method_settings={"learning_rate": 0.5},
    byte_budget=900,
    distil_steps=7,
    architecture="mlp:width=8",
    local_augment=True,
)


@pytest.mark.parametrize("settings", [FederatedSettings(), SETTINGS])
def test_run_config_round_trip(settings: FederatedSettings) -> None:
    run_config = settings.to_run_config()
    assert all(type(value) in (str, int, float, bool) for value in run_config.values())
    assert FederatedSettings.from_run_config(run_config) == settings


def test_request_round_trip_through_a_config_record() -> None:
    request = DistilRequest(seed=2**62, seconds=1 / 3, byte_budget=900, bits=4)
    assert from_flat(DistilRequest, ConfigRecord(to_flat(request))) == request


def test_whole_numbers_are_taken_for_floats_and_other_keys_passed_over() -> None:
    settings = FederatedSettings.from_run_config({"slack": 2, "results-file": "x"})
    assert settings.slack == 2.0
    assert isinstance(settings.slack, float)


@pytest.mark.parametrize(
    "flat",
    [
        {"rounds": "3"},
        {"rounds": True},
        {"rounds": 0},
        {"quorum": 1.5},
        {"method-settings": "[1]"},
        {"method-settings": "{"},
        {"protocol": "other"},
        {"architecture": "other"},
        {"bits": 7},
    ],
)
def test_bad_values_are_refused(flat: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        FederatedSettings.from_run_config(flat)  # type: ignore[arg-type]


def test_missing_fields_are_named() -> None:
    with pytest.raises(SettingsError, match="without seed"):
        from_flat(DistilRequest, {"method": "dm"})


def test_places_are_no_part_of_the_record() -> None:
    assert FederatedSettings(data_root="/a").as_record() == FederatedSettings(data_root="/b").as_record()
