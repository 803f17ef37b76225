"""Tables of methods: real runs in real processes, and processes that break in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedcl_distill.engine import Budget
from fedcl_distill.methods import list_methods
from simulations.cli import app
from simulations.commands.options import read_cells
from simulations.running.pool import PoolSettings
from simulations.running.runs import Kind, append_record, make_record, read_records
from simulations.scenarios.distil import DistilSettings, baselines, run_table, with_budget
from stand_ins import replace_worker
from watchers import Recording

ROOT = Path(__file__).parents[2]
_NETWORK = "convnet:width=4"
_CELL = DistilSettings(
    method="random", train_limit=300, images_per_class=1, distil_steps=2, networks=1, architecture=_NETWORK
)
_DM = replace(_CELL, method="dm", method_settings={"architecture": _NETWORK})
_REFUSED = replace(_CELL, method="dm", method_settings={"architecture": "convnet:width=4,depth=6"})


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    return lambda code: replace_worker(code, tmp_path, monkeypatch)


def test_a_failing_cell_is_a_line_and_stops_nothing(tmp_path):
    results, workers = tmp_path / "results.jsonl", PoolSettings(tmp_path, count=2)
    new = run_table([_REFUSED, _DM, _CELL], results, workers)
    by_kind = {record["kind"]: [r for r in new if r["kind"] == record["kind"]] for record in new}
    assert [record["settings"]["method_settings"] for record in by_kind[Kind.DISTIL_FAILED]] == [
        _REFUSED.method_settings
    ]
    failure = by_kind[Kind.DISTIL_FAILED][0]["metrics"]
    assert failure["error"] == "SettingsError"
    assert "depth 6" in failure["reason"]
    assert "dm" in failure["during"]
    assert {record["settings"]["method"] for record in by_kind["distil"]} == {"dm", "random"}
    for record in by_kind["distil"]:
        metrics = record["metrics"]
        assert record["environment"]["threads"] == 1
        assert 0 < metrics["evaluation_cpu_seconds"] <= record["seconds"] * 1.1
        assert metrics["distil_peak_bytes"] >= metrics["distil_start_bytes"] > 50e6
        assert (tmp_path / metrics["files"]["set"]).exists()
    assert list(read_records(results)) == new
    assert run_table([_REFUSED, _DM, _CELL], results, workers) == []


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", "out of memory?"),
        ("raise OSError('no such thing')", "exit", "status 1"),
        ("pass", "exit", "status 0"),
        ("time.sleep(60)", "timeout", "longer than"),
    ],
)
def test_a_process_that_ends_without_an_answer_is_a_line_with_the_reason(stand_in, tmp_path, code, error, reason):
    stand_in(code)
    longest = 1.0 if error == "timeout" else None
    (record,) = run_table([_CELL], tmp_path / "r.jsonl", PoolSettings(tmp_path, longest_seconds=longest))
    assert record["kind"] == Kind.DISTIL_FAILED
    assert record["metrics"]["error"] == error
    assert reason in record["metrics"]["reason"]
    assert ("no such thing" in record["metrics"]["traceback"]) == ("raise" in code)


def test_what_failed_is_tried_again_only_when_asked(stand_in, tmp_path):
    stand_in("sys.exit(3)")
    results, workers = tmp_path / "r.jsonl", PoolSettings(tmp_path)
    assert len(run_table([_CELL], results, workers)) == 1
    assert run_table([_CELL], results, workers) == []
    assert len(run_table([_CELL], results, workers, retry_failed=True)) == 1


def test_an_interrupt_ends_the_processes_and_keeps_what_was_done(stand_in, tmp_path):
    stand_in("time.sleep(60)")

    class Impatient(Recording):
        def update(self, fraction: float, detail: str = "") -> None:
            if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_table([_CELL, _DM], tmp_path / "r.jsonl", PoolSettings(tmp_path), Impatient())
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not (tmp_path / "r.jsonl").exists()


def test_a_cell_ends_with_the_process_that_started_it():
    child = subprocess.Popen(
        [sys.executable, "-m", "simulations.running.worker"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    assert child.stdin is not None
    child.stdin.write(b'{"kind": "distil", "settings": {}, "threads": 1, "out": "nowhere", "checkpoints": false}\n')
    child.stdin.close()
    assert child.wait(30) == 1


def test_settings_reach_the_process_whole(stand_in, tmp_path):
    stand_in(
        f"pathlib.Path({str(tmp_path / 'request')!r}).write_text(sys.stdin.readline() + os.environ['OMP_NUM_THREADS'])"
    )
    cell = replace(_DM, data_root="/data", seed=3)
    run_table([cell], tmp_path / "r.jsonl", PoolSettings(tmp_path, threads=2))
    request, threads = (tmp_path / "request").read_text().splitlines()
    assert DistilSettings(**json.loads(request)["settings"]) == cell
    assert json.loads(request)["threads"] == int(threads) == 2


def test_cells_without_a_budget_get_the_stated_one_and_doubles_go():
    unbudgeted = replace(_CELL, distil_steps=None)
    assert with_budget([unbudgeted, unbudgeted, _CELL]) == [replace(unbudgeted, distil_seconds=600.0), _CELL]
    assert [cell.budget for cell in with_budget([unbudgeted, _CELL], 9.0)] == [Budget(None, 9.0), Budget(2, 9.0)]
    by_bytes = replace(_CELL, byte_budget=2000)
    assert len(with_budget([by_bytes, replace(by_bytes, images_per_class=10)])) == 1


def test_random_samples_of_equal_bytes_stand_beside_every_method(tmp_path):
    results = tmp_path / "results.jsonl"
    larger = replace(_DM, seed=1)
    for cell, payload in ((_DM, 900), (larger, 1_200)):
        append_record(results, make_record("distil", cell.as_record(), {"payload_bytes": payload}, 1.0))
    first, second = baselines([_DM, _CELL, larger, _DM], results)
    assert first == replace(_CELL, byte_budget=900)
    assert second == replace(_CELL, seed=1, byte_budget=1_200)


def test_the_settings_of_the_committed_table_fit_the_methods():
    cells = read_cells(DistilSettings, ROOT / "experiments" / "distil-table.toml", {}, {"method": list_methods()})
    assert len(cells) == 2 * len(list_methods())
    assert {cell.budget for cell in cells} == {Budget(seconds=300.0, clock="cpu")}


def test_the_command_writes_the_table_and_goes_on_where_it_stopped(tmp_path):
    settings = tmp_path / "t.toml"
    settings.write_text(
        f'data = "digits"\ntrain_limit = 300\nimages_per_class = 1\ndistil_steps = 2\nnetworks = 1\n'
        f'architecture = "{_NETWORK}"\nmethod = ["random", "dm"]\n[method_settings.dm]\narchitecture = "{_NETWORK}"\n'
    )
    page = tmp_path / "table.md"
    arguments = ["distil-table", "--settings", settings, "--out", tmp_path / "runs", "--workers", 2, "--markdown", page]
    arguments.append("--random-at-equal-bytes")
    first = CliRunner().invoke(app, [str(one) for one in arguments])
    assert first.exit_code == 0, first.output
    records = list(read_records(tmp_path / "runs" / "results.jsonl"))
    assert len(records) == 3  # random at one image a class, and in the bytes of the other
    text = page.read_text()
    for record in records:
        assert f"{100 * record['metrics']['accuracy']:.1f}" in text
    assert f'`architecture="{_NETWORK}"`' in text
    assert "Budget of each cell: 2 steps" in text
    started = time.monotonic()
    assert CliRunner().invoke(app, [str(one) for one in arguments]).exit_code == 0
    assert time.monotonic() - started < 3
    assert page.read_text() == text
