"""Accuracy against ε: what belongs on which curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from builders import blobs
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.private import private_statistics
from fedcl_distill.privacy import publicly_scaled
from fedcl_distill.training import BRIEF, PROTOCOLS
from simulations.cli import app
from simulations.report import write_report
from simulations.running.runs import Record, append_record, make_record, read_records
from simulations.scenarios import privacy as scenario
from simulations.tables.privacy import NO_NOISE, privacy_table, privacy_tasks

_RUNNER = CliRunner()


def distilled(
    method: str, accuracy: float, epsilon: float | None = None, *, seeded: bool = False, **settings: Any
) -> Record:
    own = {} if epsilon is None else {"epsilon": epsilon}
    claim = {"epsilon": epsilon, "delta": 1e-5, "seeded": seeded} if epsilon else None
    chosen = {"data": "digits", "images_per_class": 1, "method": method, "method_settings": own, "seed": 0, **settings}
    metrics = {"accuracies": [accuracy], "privacy": claim, "protocol": "quick"}
    return make_record("distil", chosen, metrics, 1.0)


def federated(accuracy: float, epsilon: float, trust: str | None = None) -> Record:
    own = {"epsilon": epsilon} if trust is None else {"epsilon": epsilon, "trust": trust}
    claim = {"epsilon": epsilon, "delta": 1e-5, "seeded": False} if epsilon else None
    common = {"data": "digits", "images_per_class": 1, "clients": 10, "partition": "iid", "seed": 0}
    settings = {**common, "strategy": "statistics", "strategy_settings": own}
    return make_record("federated", settings, {"accuracy": accuracy, "privacy": claim}, 1.0)


RECORDS = [
    distilled("private-statistics", 0.6, 1.0),
    distilled("private-statistics", 0.7, 1.0, seed=1),
    distilled("private-statistics", 0.8, 0.0),
    distilled("psg", 0.5, 10.0),
    distilled("psg", 0.9, 4.0, seeded=True),
    distilled("dm", 0.85),
    distilled("random", 0.75),
    federated(0.4, 1.0, "node"),
    federated(0.55, 1.0, "server"),
    federated(0.78, 0.0),
    distilled("dm", 0.9, images_per_class=10),
]


def test_curves_are_told_apart_by_who_adds_noise() -> None:
    (task,) = privacy_tasks(RECORDS)
    assert task.title == "digits, 1 images per class"
    assert task.curves == {
        "private-statistics, one place": {1.0: [0.6, 0.7], NO_NOISE: [0.8]},
        "psg, one place": {10.0: [0.5]},
        "10 clients, noise at each": {1.0: [0.4], NO_NOISE: [0.78]},
        "10 clients, noise at the server": {1.0: [0.55], NO_NOISE: [0.78]},
    }
    assert task.references == {"dm": [0.85], "random †": [0.75]}


def test_the_table_has_a_column_for_each_epsilon() -> None:
    (task,) = privacy_tasks(RECORDS)
    table = privacy_table(task)
    assert table.columns == ("accuracy (%) at ε =", "1", "10", "∞")
    assert table.rows[0] == ("private-statistics, one place", "65.0 ± 7.1", "–", "80.0")
    assert table.rows[-2] == ("dm", "–", "–", "85.0")


@pytest.mark.parametrize("records", [[distilled("dm", 0.9)], [distilled("psg", 0.9, 0.0)], []])
def test_without_a_private_release_there_is_nothing_to_show(records: list[Record], tmp_path: Path) -> None:
    assert privacy_tasks(records) == []


def test_the_report_has_a_section(tmp_path: Path) -> None:
    for record in RECORDS:
        append_record(tmp_path / "results.jsonl", record)
    page = write_report(tmp_path / "results.jsonl", tmp_path / "report.html").read_text()
    assert "Privacy and accuracy" in page
    assert "10 clients, noise at the server" in page


_STATISTICS = {"views": 2, "dimensions": 8, "moments": 2, "architecture": "convnet:width=4"}
_SPEC = private_statistics(epsilon=1.0, **_STATISTICS).spec


def test_one_pass_serves_every_epsilon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    counted = scenario.class_statistics
    monkeypatch.setattr(scenario, "class_statistics", lambda *a, **b: passes.append(1) or counted(*a, **b))
    moment = replace(BRIEF, train_config=replace(BRIEF.train_config, epochs=1))
    monkeypatch.setitem(PROTOCOLS, "brief", moment)
    for record in RECORDS:
        append_record(tmp_path / "other" / "results.jsonl", record)
    settings = tmp_path / "cells.toml"
    settings.write_text(
        "train_limit = 1000\nimages_per_class = 1\ndistil_steps = 2\nprotocol = 'brief'\nnetworks = 1\n"
        "architecture = 'mlp:width=4'\nnodes = [1, 3]\nepsilon = [8.0, 50.0]\n"
        "statistics = { views = 2, dimensions = 8, moments = 2, architecture = 'convnet:width=4' }\n"
    )
    arguments = ["--settings", str(settings), "--out", str(tmp_path), "--drawing", str(tmp_path / "privacy.svg")]
    said = _RUNNER.invoke(app, ["privacy", *arguments, "--with", str(tmp_path / "other")])
    assert said.exit_code == 0, said.output
    assert len(passes) == 1
    records = list(read_records(tmp_path / "results.jsonl"))
    assert [record["metrics"]["privacy"]["epsilon"] for record in records] == [8.0, 50.0] * 2
    assert "3 clients, noise at each" in (tmp_path / "privacy.svg").read_text()
    assert "psg, one place" in said.output


def test_noise_of_nodes_adds_up() -> None:
    exact = scenario.class_statistics(publicly_scaled(blobs((1, 8, 8), classes=2, per_class=30)), _SPEC)
    method = private_statistics(epsilon=1.0, **_STATISTICS)
    one, four = (scenario._released(exact, method, nodes) for nodes in (1, 4))
    assert four.guarantee == one.guarantee
    assert four.variance == 4
    drawn = (four.sums["features"] - exact.sums["features"].values).std()
    assert float(drawn) == pytest.approx(four.deviations()["features"], rel=0.5)
    assert four.deviations()["features"] == pytest.approx(2 * one.deviations()["features"])


def test_without_noise_sums_are_exact() -> None:
    exact = scenario.class_statistics(publicly_scaled(blobs((1, 8, 8), classes=2, per_class=30)), _SPEC)
    released = scenario._released(exact, private_statistics(epsilon=0, **_STATISTICS), 3)
    assert released.guarantee is None
    assert torch.equal(released.sums["features"], exact.sums["features"].values)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"nodes": 0}, "nodes must be a whole number at least 1"),
        ({"statistics": {"epsilon": 2.0}}, "epsilon cannot be among"),
        ({"statistics": {"vews": 2}}, "vews"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"protocol": "slow"}, "unknown protocol"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        scenario.PrivacySettings(**settings)
