"""Truth: what is in the file afterwards."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulations.running.compare import compare
from simulations.running.progress import Silent
from simulations.running.runs import (
    Run,
    append_record,
    environment,
    finished_keys,
    make_record,
    read_records,
    settings_key,
)


def test_a_torn_line_is_passed_over_and_nothing_else_is_lost(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    one, two = (make_record("distil", {"seed": seed}, {"accuracy": 0.5}, 1.0) for seed in (0, 1))
    append_record(results, one)
    with results.open("a") as stream:
        stream.write(json.dumps(two)[:40])  # a crash in the middle of a line
    append_record(results, two)
    assert list(read_records(results)) == [one, two]
    assert finished_keys(results) == {one["key"], two["key"]}
    assert list(read_records(tmp_path / "absent")) == []


def test_lines_that_are_no_results_are_passed_over(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    foreign = [b'{"kind": "distil"}', b"[1, 2]", b"\xff\xfe", b"[" * 100_000]
    foreign.append(b'{"kind": 1, "key": [], "settings": {}, "metrics": {}}')
    results.write_bytes(b"\n".join(foreign))
    record = make_record("distil", {"seed": 0}, {}, 1.0)
    append_record(results, record)
    assert list(read_records(results)) == [record]


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    append_record(results, make_record("distil", {}, {"class_accuracies": [0.5, float("nan")]}, 1.0))
    json.loads(results.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert next(read_records(results))["metrics"]["class_accuracies"] == [0.5, None]


def test_keys_name_settings_whatever_their_order() -> None:
    assert settings_key("distil", {"a": 1, "b": 2}) == settings_key("distil", {"b": 2, "a": 1})
    assert settings_key("distil", {"a": 1}) != settings_key("distil", {"a": 2})
    assert settings_key("distil", {"a": 1}) != settings_key("federated", {"a": 1})


def test_the_environment_names_versions_and_machine() -> None:
    found = environment()
    assert found["versions"]["torch"]
    assert found["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


@dataclass
class Cell:
    seed: int

    def as_record(self) -> dict[str, int]:
        return {"seed": self.seed}


def test_a_comparison_skips_what_is_done_and_keeps_what_was_finished_before_an_error(tmp_path: Path) -> None:
    results, ran = tmp_path / "results.jsonl", []

    def do(run: Run, *_: object) -> dict[str, object]:
        cell = run.settings
        if cell.seed == 2 and len(ran) < 3:
            ran.append(cell.seed)
            raise KeyboardInterrupt
        ran.append(cell.seed)
        return make_record("distil", cell.as_record(), {}, 0.0)

    cells = [Run("distil", Cell(seed)) for seed in range(4)]
    with contextlib.suppress(KeyboardInterrupt):
        compare(cells, results, Silent(), perform=do)
    compare(cells, results, Silent(), perform=do)
    assert ran == [0, 1, 2, 2, 3]
    assert [record["settings"]["seed"] for record in read_records(results)] == [0, 1, 2, 3]
