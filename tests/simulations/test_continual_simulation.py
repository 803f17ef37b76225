"""Continual scenarios: records, resuming, and what they tell while they run."""

from __future__ import annotations

import json

import pytest

from fedcl_distill.errors import DataError
from simulations.running.compare import compare
from simulations.running.runs import Run, read_records
from simulations.scenarios.continual import KIND, run_continual
from strategies.continual import ContinualSettings
from watchers import Recording


def _settings(**changes):
    settings = {"train_limit": 200, "images_per_class": 2, "epochs": 1, "architecture": "mlp:width=16"}
    return ContinualSettings(**{**settings, "strategy": "reservoir", **changes})


def test_a_record_holds_settings_and_json_values_but_no_place_on_this_computer(tmp_path):
    record = run_continual(_settings(seed=5, data_root=str(tmp_path)))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["kind"] == "continual"
    assert record["settings"]["seed"] == 5
    assert str(tmp_path) not in json.dumps(record)
    assert [len(row) for row in record["metrics"]["matrix"]] == [5] * 5
    assert record["metrics"]["memory_bytes"][-1] > 0


def test_progress_ascends_to_the_end():
    watcher = Recording()
    run_continual(_settings(experiences=2), watcher)
    assert watcher.fractions == [0.5, 1.0]
    assert "average accuracy" in watcher.notes[0]


def test_a_comparison_resumes_where_it_stopped(tmp_path):
    path = tmp_path / "results.jsonl"
    runs = [Run(KIND, _settings()), Run(KIND, _settings(strategy="naive"))]
    assert len(compare(runs[:1], path)) == 1
    (second,) = compare(runs, path)
    assert second["settings"]["strategy"] == "naive"
    assert compare(runs, path) == []
    assert len(list(read_records(path))) == 2


def test_unknown_data_are_told_at_once():
    with pytest.raises(DataError, match="unknown data set"):
        run_continual(_settings(data="nothing of the kind"))


def test_an_interrupted_run_goes_on_after_the_last_experience(tmp_path):
    path, reached = tmp_path / "results.jsonl", []

    def stop(index, accuracies):
        reached.append(index)
        if len(reached) == 2:
            raise KeyboardInterrupt

    plain = run_continual(_settings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.scenarios.continual._seen", lambda *seen: stop(*seen) or 0.0)
        with pytest.raises(KeyboardInterrupt):
            compare([Run(KIND, _settings())], path)
        assert len(list(tmp_path.glob("*.checkpoint.pt"))) == 1
        (record,) = compare([Run(KIND, _settings())], path)
    assert reached == [0, 1, 2, 3, 4]
    assert record["metrics"]["matrix"] == plain["metrics"]["matrix"]
    assert [one.name for one in tmp_path.iterdir()] == ["results.jsonl"]
