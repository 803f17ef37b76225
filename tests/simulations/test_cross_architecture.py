"""Saved sets by several architectures: what is judged, what is skipped, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import FAST, PROTOCOLS, evaluate
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import load, save
from simulations.cli import app
from simulations.running.runs import append_record, make_record, read_records
from simulations.scenarios import saved_sets
from simulations.scenarios.saved_sets import CrossSettings, compare_architectures, find_sets, score_sets
from simulations.tables.comparison import cross_tables
from watchers import Recording

_CELLS = [CrossSettings(architecture=name, networks=1) for name in ("convnet:width=4", "mlp:width=8")]


@pytest.fixture(autouse=True)
def short_protocol(monkeypatch):
    short = replace(FAST, train_config=replace(FAST.train_config, epochs=3), width=4)
    monkeypatch.setitem(PROTOCOLS, "fast", short)
    return short


@pytest.fixture
def saved(tmp_path: Path, digits: Splits) -> list[Path]:
    paths = []
    for name in ("random", "herding"):
        synthetic = build_method(name).distil(digits.train, 1, seed=0)
        paths.append(save(synthetic, tmp_path / f"{name}.safetensors", 8))
    return [tmp_path / "random.safetensors", tmp_path / "herding.safetensors"]


def test_every_set_meets_every_architecture_once(tmp_path, saved, digits, short_protocol) -> None:
    results = tmp_path / "results.jsonl"
    records = compare_architectures(saved, _CELLS, results)
    assert [(r["settings"]["method"], r["settings"]["architecture"]) for r in records] == [
        (method, cell.architecture) for method in ("random", "herding") for cell in _CELLS
    ]
    architecture = Architecture.parse(_CELLS[1].architecture)
    by_hand = evaluate(load(saved[1]), digits.test, short_protocol, seed=0, architecture=architecture, networks=1)
    assert records[3]["metrics"]["accuracies"] == list(by_hand.accuracies)
    assert compare_architectures(saved, _CELLS, results) == records == list(read_records(results))

    (table,) = cross_tables(records)
    assert table.columns == ("set", "convnet:width=4", "mlp:width=8")
    shown = {row[0]: row[2] for row in table.rows}
    assert shown["herding (10 samples)"] == f"{100 * by_hand.mean:.1f}"


def test_an_architecture_that_cannot_read_the_samples_is_noted(tmp_path, saved) -> None:
    watcher = Recording()
    cells = [CrossSettings(architecture="convnet:width=4,depth=5", networks=1), _CELLS[1]]
    records = compare_architectures(saved[:1], cells, tmp_path / "r.jsonl", watcher)
    assert [record["settings"]["architecture"] for record in records] == ["mlp:width=8"]
    assert watcher.notes == ["convnet:width=4,depth=5 cannot read the samples of random.safetensors"]


def test_scores_train_on_all_real_data_once(tmp_path, saved, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(saved_sets, "real_accuracy", lambda *a, **k: calls.append(1) or 0.9)
    results = tmp_path / "r.jsonl"
    records = score_sets(saved, _CELLS, results)
    assert len(calls) == 1
    assert len(records) == 2
    assert all(record["metrics"]["accuracy_real_hard"] == 0.9 for record in records)
    assert score_sets(saved, _CELLS, results) == records
    assert len(calls) == 1
    table = cross_tables([*compare_architectures(saved, _CELLS, results), *records])[0]
    assert table.columns[-2:] == ("LRS", "ARS")
    assert all(0 <= float(row[-1]) <= 100 for row in table.rows)


def test_sets_are_found_in_results(tmp_path, saved) -> None:
    metrics = {"files": {"set": saved[0].name}}
    append_record(tmp_path / "results.jsonl", make_record("distil", {}, metrics, 1.0))
    assert find_sets([tmp_path]) == find_sets([tmp_path / "results.jsonl"]) == find_sets(saved[:1]) == saved[:1]
    with pytest.raises(SettingsError, match="neither a set nor results"):
        find_sets([tmp_path / "nowhere"])


def test_the_command_writes_a_table(tmp_path, saved) -> None:
    arguments = ["cross-architecture", *map(str, saved), "--out", str(tmp_path), "--architecture", "mlp:width=8"]
    result = CliRunner().invoke(app, [*arguments, "--networks", "1", "--markdown", str(tmp_path / "t.md")])
    assert result.exit_code == 0, result.output
    assert "| herding (10 samples) |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize("wrong", [{"architecture": "transformer"}, {"protocol": "lenient"}, {"networks": 0}])
def test_settings_that_cannot_work_are_refused(wrong) -> None:
    with pytest.raises(SettingsError):
        CrossSettings(**wrong)
