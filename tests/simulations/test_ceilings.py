"""What federated strategies are measured against: equal to what they stand for, and counted as raw data."""

from __future__ import annotations

import pytest
import torch

from fedcl_distill.errors import SettingsError
from federations import quick
from simulations.flower.app import client_parts
from simulations.scenarios.federated import CEILINGS, run_federated, simulate
from simulations.scenarios.federated_continual import CEILINGS as BOTH
from simulations.tables.variants import RAW_DATA, REAL_SAMPLES_MARK, scenarios


def _settings(**changes):
    return quick(**{"data": "digits", "train_limit": 200, "clients": 3, **changes})


def test_centralised_is_fedavg_with_one_client():
    alone = {"clients": 1, "rounds": 3, "local_epochs": 2}
    both = [simulate(_settings(strategy=strategy, **alone)) for strategy in ("centralised", "fedavg")]
    accuracies = [[one.accuracy for one in result.rounds] for result in both]
    assert accuracies[0] == accuracies[1]
    assert len(accuracies[0]) == 4
    assert both[0].accuracy > both[0].rounds[0].accuracy


def test_pooled_distillation_has_the_size_of_the_union():
    skewed = {"partition": "dirichlet:0.1", "images_per_class": 2}
    pooled, union = (simulate(_settings(strategy=one, **skewed)) for one in ("pooled-distillation", "one-shot"))
    assert torch.equal(pooled.synthetic.class_counts, union.synthetic.class_counts)
    assert len(set(union.synthetic.class_counts.tolist())) > 1, "classes would not matter"
    assert not torch.equal(pooled.synthetic.inputs(), union.synthetic.inputs())
    assert pooled.accuracy > 0.4


def test_pooled_distillation_by_bytes_has_all_clients_bytes():
    pooled = simulate(_settings(strategy="pooled-distillation", byte_budget=1500))
    union = simulate(_settings(byte_budget=1500))
    assert len(union.synthetic) <= len(pooled.synthetic) <= 1.5 * len(union.synthetic)


def test_pooled_distillation_fits_the_bytes_of_all_clients():
    fitted, plain = (
        simulate(_settings(strategy="pooled-distillation", byte_budget=1500, fit_to_budget=fit))
        for fit in (True, False)
    )
    assert len(fitted.synthetic) > len(plain.synthetic)


@pytest.mark.parametrize("strategy", CEILINGS)
def test_bytes_are_those_of_the_raw_data(strategy):
    settings = _settings(strategy=strategy)
    record = run_federated(settings)
    metrics, parts = record["metrics"], client_parts(settings)
    by_client = [part.samples.nbytes + len(part) for part in parts]
    assert metrics["bytes_up"] == sum(by_client)
    assert metrics["bytes_down"] == 0
    assert [one["up"] for one in metrics["bytes_by_client"]] == by_client
    assert [one["round"] for one in metrics["rounds"]] == [0, 1]
    assert metrics["rounds"][0]["bytes_up"] == 0
    (scenario,) = scenarios([record], "federated")
    assert scenario.variants[0].label.endswith(REAL_SAMPLES_MARK)


def test_reports_know_whose_data_are_handed_over():
    assert {*CEILINGS, *BOTH} == RAW_DATA


def test_settings_that_do_not_fit():
    with pytest.raises(SettingsError, match="one round"):
        simulate(_settings(strategy="pooled-distillation", rounds=2))
    with pytest.raises(SettingsError, match="has no settings"):
        simulate(_settings(strategy="centralised", strategy_settings={"mu": 1.0}))
