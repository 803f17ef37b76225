"""Federated continual runs as experiments: result lines, ceilings, tables, report."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from fedcl_distill.errors import SettingsError
from simulations.flower.app import client_parts
from simulations.flower.federated_continual_app import KIND, client_streams
from simulations.report.page import render
from simulations.running.compare import compare
from simulations.running.progress import Silent
from simulations.running.runs import Run, make_record, perform, read_records
from simulations.scenarios.federated_continual import run_federated_continual
from simulations.settings import FederatedContinualSettings
from simulations.tables.comparison import table_of
from simulations.tables.variants import REAL_SAMPLES_MARK, scenarios


def _settings(**changes: Any) -> FederatedContinualSettings:
    quick = {
        "method": "random",
        "clients": 3,
        "images_per_class": 5,
        "memory_images_per_class": 5,
        "architecture": "mlp:width=32",
        "train_limit": 600,
        "protocol": "quick",
    }
    return FederatedContinualSettings(**{**quick, **changes})


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One file with a result of each of these variants, on digits."""
    path = tmp_path_factory.mktemp("runs") / "results.jsonl"
    local = {"rounds": 3, "local_epochs": 5, "local_learning_rate": 0.05}
    cells = [_settings(), _settings(strategy="joint-distilled")]
    cells += [_settings(strategy=strategy, **local) for strategy in ("fedavg", "joint")]
    runs = [Run(KIND, cell) for cell in cells]
    assert len(compare(runs, path)) == 4
    assert compare(runs, path) == [], "what is there is not computed again"
    return path


def _by_strategy(path: Any) -> dict[str, dict[str, Any]]:
    return {record["settings"]["strategy"]: record["metrics"] for record in read_records(path)}


def test_memory_beats_fine_tuning_on_digits(results):
    found = _by_strategy(results)
    assert found["distilled"]["average_accuracy"] > 0.75
    assert found["fedavg"]["average_accuracy"] < 0.5
    assert found["distilled"]["forgetting"] < found["fedavg"]["forgetting"]
    assert found["joint"]["forgetting"] < 0.2


def test_ceilings_count_what_sending_the_data_takes(results):
    found = _by_strategy(results)
    parts = client_parts(_settings())
    raw = sum(part.samples.nbytes + len(part) for part in parts)
    for strategy in ("joint", "joint-distilled"):
        assert found[strategy]["bytes_up"] == raw
        assert found[strategy]["bytes_down"] == 0
    ups = [stage["bytes_up"] for stage in found["joint"]["stages"]]
    assert ups == sorted(ups)
    assert ups[0] < raw
    assert found["joint-distilled"]["memory_counts"] == [5] * 10


def test_real_samples_are_marked_and_the_table_has_every_variant(results):
    (scenario,) = scenarios(read_records(results), KIND)
    labels = {variant.label for variant in scenario.variants}
    assert labels == {
        f"distilled (random){REAL_SAMPLES_MARK}",
        "fedavg",
        f"joint{REAL_SAMPLES_MARK}",
        f"joint-distilled (random){REAL_SAMPLES_MARK}",
    }
    table = table_of(scenario)
    assert "stream same" in table.title
    assert len(table.rows) == 4


def test_report_shows_matrix_stages_and_bytes(results):
    page = render([results])
    for text in ("Federated continual learning", "Global accuracy matrix", "against bytes", "after stage"):
        assert text in page


@pytest.mark.parametrize("metrics", [{}, {"matrix": "x", "average_by_stage": [None]}, {"matrix": [[1.0], [0.5, None]]}])
def test_report_survives_strange_results(metrics, tmp_path):
    record = make_record(KIND, _settings().as_record(), metrics, 1.0)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert "Federated continual learning" in render([path])


def test_a_run_that_was_interrupted_leaves_a_checkpoint_and_goes_on(tmp_path, monkeypatch):
    from simulations.scenarios import federated_continual

    run = Run(KIND, _settings(strategy="fedavg", local_epochs=1))
    honest = federated_continual.run_server

    def killed(*args: Any, **kwargs: Any) -> Any:
        def stop(result: Any) -> None:
            if result.stage == 2:
                raise KeyboardInterrupt

        return honest(*args, **{**kwargs, "on_stage": stop})

    monkeypatch.setattr(federated_continual, "run_server", killed)
    with pytest.raises(KeyboardInterrupt):
        perform(run, Silent(), tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    assert checkpoint.name == f"{KIND}-{run.key}.checkpoint.pt"
    monkeypatch.setattr(federated_continual, "run_server", honest)
    resumed = perform(run, Silent(), tmp_path)
    assert resumed["metrics"]["matrix"] == run_federated_continual(run.settings)["metrics"]["matrix"]


def test_streams_share_out_all_training_data():
    streams = client_streams(_settings(stream="shuffled", partition="dirichlet:0.1"))
    labels = torch.cat([part.labels for stream in streams for part in stream.experiences])
    assert len(labels) == 600


def test_wrong_settings_are_told_in_one_line():
    with pytest.raises(SettingsError, match="unknown strategy"):
        run_federated_continual(_settings(strategy="feddm"))
    with pytest.raises(SettingsError, match="has no settings"):
        run_federated_continual(_settings(strategy="joint", strategy_settings={"epochs": 3}))
