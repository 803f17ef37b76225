"""Truth: every cell of the curve is within its bytes, real samples are marked, and nothing is run twice."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from simulations.cli import app
from simulations.commands.bytes import WAYS, of_way
from simulations.running.runs import RESULTS, read_records
from simulations.scenarios.distil import DistilSettings


def test_a_curve_is_drawn_within_the_bytes_and_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("simulations.commands.bytes.WAYS", [WAYS[0], WAYS[3]])
    command = [
        "bytes",
        "--data",
        "digits",
        "--bytes",
        "600",
        "--protocol",
        "brief",
        "--networks",
        "1",
        "--seconds",
        "1",
    ]
    command += ["--out", str(tmp_path), "--markdown", str(tmp_path / "t.md"), "--plot", str(tmp_path / "c.svg")]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    records = list(read_records(tmp_path / RESULTS))
    assert [record["settings"]["method"] for record in records] == ["compressed", "random"]
    assert all(400 < record["metrics"]["payload_bytes"] <= 600 for record in records)
    assert records[0]["metrics"]["samples"] > records[1]["metrics"]["samples"]
    table = (tmp_path / "t.md").read_text()
    assert "compressed random †" in table
    assert "600 bytes" in table
    assert (tmp_path / "c.svg").read_text().startswith("<")


def test_ways_take_the_methods_settings_and_their_own_store() -> None:
    cell = DistilSettings(method="dm", method_settings={"architecture": "convnet:width=4"})
    cells = {way.label: of_way(way, 2000, cell, 5.0) for way in WAYS}
    assert cells["DCT"].method_settings == {"architecture": "convnet:width=4", "parameterization": "dct"}
    assert cells["tiles, 2 or 4 bits"].bits in (2, 4)
    assert cells["compressed herding †"].method_settings == {"selection": "herding"}
    assert {one.byte_budget for one in cells.values()} == {2000}
