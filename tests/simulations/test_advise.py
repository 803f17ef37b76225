"""Truth: what was measured, and by hand which way is within the bytes and within chance of the best."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcl_distill.errors import SettingsError
from simulations.cli import app
from simulations.running.runs import read_records
from simulations.scenarios.advise import AdviceSettings, Tried, Way, advice, ways
from simulations.settings import FederatedSettings


def tried(label: str, accuracy: float, size: float, effort: int = 1, **changes: object) -> Tried:
    known = {"strategy": "one-shot", "method": "dm", "byte_budget": 1_000, **changes}
    return Tried(Way(label, (FederatedSettings(**known),), effort), accuracy, size, 1.0)  # type: ignore[arg-type]


def test_the_simplest_of_what_is_level_is_chosen_and_the_better_one_named() -> None:
    said = advice([tried("simple", 0.80, 900), tried("hard", 0.81, 900, effort=3)], 400, 1_000)
    assert said.startswith("Take simple: 80.0%")
    assert "hard has 81.0%" in said
    assert advice([tried("simple", 0.70, 900), tried("hard", 0.81, 900, effort=3)], 400, 1_000).startswith("Take hard")


def test_what_takes_more_bytes_is_told_and_not_chosen() -> None:
    averaged = tried("FedAvg", 0.95, 50_000, strategy="fedavg", byte_budget=None)
    said = advice([tried("set", 0.8, 1_000), averaged], 400, 1_000)
    assert said == "Take set: 80.0% for 1.00 kB a client. With 50 times the bytes, FedAvg has 95.0%."
    assert advice([tried("set", 0.8, 1_000), averaged], 400, 60_000).startswith("Take FedAvg")
    with pytest.raises(SettingsError, match="1000 bytes"):
        advice([averaged], 400, 1_000)


def test_real_samples_are_said_to_be_no_secret() -> None:
    assert "not private" in advice([tried("herded", 0.9, 10, method="herding")], 10, 1_000)


def test_a_backbone_behind_the_data_is_one_more_way_and_pixels_stay_pixels() -> None:
    with_backbone = ways(AdviceSettings(data="digits:features=[random:count=20]"))
    assert with_backbone[0].runs[0].strategy == "feature-sums"
    assert {one.runs[0].data for one in with_backbone[1:]} == {"digits"}
    assert len(ways(AdviceSettings())) == len(with_backbone) - 1


def test_the_command_tries_them_all_on_held_out_data_and_recommends_one(tmp_path: Path) -> None:
    asked = ["--features", "random:count=50", "--train-limit", "300", "--bytes", "700", "--rounds", "1"]
    quick = ["--distil-seconds", "0.2", "--architecture", "mlp:width=16", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["advise", *asked, *quick], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Take " in done.output
    assert "60 held-out" in done.output
    records = list(read_records(tmp_path / "results.jsonl"))
    assert all(record["settings"]["validation_share"] == 0.2 for record in records)
    assert {record["settings"]["strategy"] for record in records} == {
        "feature-sums",
        "one-shot",
        "quantised",
        "centralised",
    }
    assert (tmp_path / "report.html").exists()
