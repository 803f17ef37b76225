"""Kills at random times: what is safe comes through, and what is not is found out."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from simulations.dev import faults
from simulations.dev.faults import JOBS, Job, JobError, _command, attempt, difference, outcome_of, outliving
from simulations.running.processes import in_fresh_process
from simulations.running.runs import append_record, make_record


def _append(folder: Path, value: float) -> None:
    append_record(folder / "results.jsonl", make_record("distil", {"a": 1}, {"value": value, "seconds": value}, 0.0))


def test_a_distillation_goes_on_from_its_checkpoints_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulations.dev.faults._STEPS", 8)
    tally = faults.kill_often(JOBS["distil"], kills=3, seed=1, place=tmp_path / "place")
    assert tally.wrong == []
    assert tally.kills == 3
    assert tally.compared >= 1


def test_a_doubled_line_is_found_out(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        _append(folder, 1.0)  # without a look at what is there already
        time.sleep(0.3)

    tally = faults.kill_often(Job("careless", work, ()), kills=3, seed=0, place=tmp_path / "place")
    assert any("different: results.jsonl" in one for one in tally.wrong)


@pytest.mark.slow
def test_a_comparison_on_the_command_line_survives_kills(tmp_path: Path) -> None:
    tally = faults.kill_often(JOBS["comparison"], kills=2, seed=0, place=tmp_path / "place")
    assert tally.wrong == []
    assert (tally.kills, tally.results) == (2, 4)


def test_a_command_that_is_refused_is_no_job_done(tmp_path: Path) -> None:
    refused = Job("refused", _command("distil", "--method", "nothing"), ())
    with pytest.raises(JobError, match="distil ended with status 2"):
        attempt(refused, tmp_path / "folder", tmp_path / "log")


def test_a_job_without_a_result_has_nothing_to_lose(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no result"):
        faults.kill_often(Job("idle", lambda folder: None, ()), kills=1, seed=0, place=tmp_path / "place")


def test_a_process_that_is_left_behind_is_found_out_and_ended(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        subprocess.Popen(["sleep", "60"], start_new_session=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(JobError, match="status 9"):
        attempt(Job("parent", work, ()), tmp_path / "folder", tmp_path / "log")
    tally = faults.Tally("parent")
    faults._mourn(tmp_path / "folder", tally, 0.2)
    assert [one.partition(" outlived")[1] for one in tally.wrong] == [" outlived"]
    assert outliving(tmp_path / "folder", 30.0) == []


def test_a_fresh_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        in_fresh_process("multiprocessing.connection:wait", {"object_list": [], "timeout": 300}, 1)

    folder = tmp_path / "folder"
    assert attempt(Job("fresh", work, ()), folder, tmp_path / "log", kill_after=0.5) is None
    assert outliving(folder, 60.0) == []


def test_a_job_that_fails_by_itself_is_told_with_its_log_tail(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        raise ValueError("no such thing")

    with pytest.raises(JobError, match="no such thing"):
        attempt(Job("failing", work, ()), tmp_path, tmp_path / "log")


def test_outcomes_differ_by_values_and_not_by_what_was_measured(tmp_path: Path) -> None:
    outcomes = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / name).mkdir()
        _append(tmp_path / name, value)
        (tmp_path / name / "picture").write_bytes(b"same")
        outcomes.append(outcome_of(tmp_path / name))
    first, same, other = outcomes
    assert difference(first, same) is None
    assert difference(first, other) == "different: results.jsonl"
    (tmp_path / "b" / ".run.pt.part").write_bytes(b"")
    assert difference(first, outcome_of(tmp_path / "b")) == "left over: .run.pt.part"
    assert difference(outcome_of(tmp_path / "b"), first) == "missing: .run.pt.part"


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(Exception, match="unknown job nothing; known: distil"):
        faults.main(["nothing"])
