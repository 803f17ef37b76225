"""Federated scenarios: records, resuming, and what they tell while they run."""

from __future__ import annotations

import json

import pytest

from fedcl_distill.errors import SettingsError
from federations import quick
from simulations.running.compare import compare
from simulations.running.progress import Silent
from simulations.running.runs import Run, read_records
from simulations.scenarios.federated import KIND, run_federated
from simulations.settings import FederatedSettings
from watchers import Recording


def _settings(**changes):
    return quick(**{"data": "digits", "train_limit": 200, "clients": 3, **changes})


def test_a_record_holds_settings_and_json_values():
    record = run_federated(_settings(seed=5))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["kind"] == "federated"
    assert record["settings"]["seed"] == 5
    assert record["metrics"]["accuracy"] > 0.3
    assert record["metrics"]["bytes_up"] > 0
    assert [one["round"] for one in record["metrics"]["rounds"]] == [0, 1]


def test_progress_ascends_to_the_end():
    watcher = Recording()
    run_federated(_settings(strategy="fedavg", rounds=2), watcher)
    assert watcher.fractions == sorted(watcher.fractions)
    assert watcher.fractions[-1] == 1
    assert "accuracy" in watcher.notes[0]


def test_a_comparison_resumes_where_it_stopped(tmp_path):
    path = tmp_path / "results.jsonl"
    runs = [Run(KIND, _settings()), Run(KIND, _settings(strategy="fedavg", rounds=2))]
    assert len(compare(runs[:1], path)) == 1
    (second,) = compare(runs, path)
    assert second["settings"]["strategy"] == "fedavg"
    assert compare(runs, path) == []
    assert len(list(read_records(path))) == 2


class Interrupted(Silent):
    """Presses Ctrl-C when a run is so far."""

    def __init__(self, fraction):
        self.fraction = fraction

    def update(self, fraction, detail=""):
        if fraction >= self.fraction and "accuracy" in detail:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_from_its_last_round(tmp_path):
    one = Run(KIND, _settings(strategy="scaffold", rounds=4))  # whose clients keep something, too
    (whole,) = compare([one], tmp_path / "whole" / "results.jsonl")
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        compare([one], folder / "results.jsonl", Interrupted(0.5))
    assert len(list(folder.iterdir())) == 1  # the checkpoint
    watcher = Recording()
    (resumed,) = compare([one], folder / "results.jsonl", watcher)
    assert [path.name for path in folder.iterdir()] == ["results.jsonl"]
    assert watcher.fractions[0] >= 0.5
    assert _timeless(resumed) == _timeless(whole)


def _timeless(record):
    metrics = {name: value for name, value in record["metrics"].items() if "seconds" not in name}
    rounds = [{name: value for name, value in one.items() if "seconds" not in name} for one in metrics["rounds"]]
    return record["key"], {**metrics, "rounds": rounds}


def test_an_unknown_strategy_is_refused():
    with pytest.raises(SettingsError, match=r"unknown strategy.*known: .*centralised"):
        run_federated(FederatedSettings(strategy="other"))


def test_data_that_cannot_be_divided_are_told_at_once():
    with pytest.raises(SettingsError, match="unknown partitioner"):
        run_federated(_settings(partition="other"))
