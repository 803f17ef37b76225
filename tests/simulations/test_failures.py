"""A run that fails does not take the others of its comparison with it, unless they would fail as well."""

from __future__ import annotations

import pytest

from fedcl_distill.errors import DivergenceError, SettingsError, StorageError
from simulations.cli import app
from simulations.running.compare import ComparisonError, Failures, compare
from simulations.running.progress import Silent
from simulations.running.runs import Kind, Run, make_record, read_records
from simulations.scenarios.distil import DistilSettings

RUNS = [Run(Kind.DISTIL, DistilSettings(seed=seed)) for seed in range(4)]


class Noting(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def performing(errors):
    def perform(run, watcher, folder):
        if run.settings.seed in errors:
            raise errors[run.settings.seed]
        return make_record(run.kind, run.settings.as_record(), {"accuracy": 0.5}, 0.0)

    return perform


def test_the_others_go_on_and_the_error_comes_last(tmp_path):
    path, watcher, failures = tmp_path / "results.jsonl", Noting(), Failures()
    done = compare(RUNS, path, watcher, perform=performing({1: DivergenceError("too fast")}), failures=failures)
    assert [record["settings"].get("seed", 0) for record in done] == [0, 2, 3]
    assert watcher.notes == ["failed: distil method=dm data=digits seed=1: too fast"]
    with pytest.raises(ComparisonError, match=r"^1 of 4 runs failed"):
        failures.check()
    later = Failures()
    (repaired,) = compare(RUNS, path, perform=performing({}), failures=later)
    assert repaired["settings"]["seed"] == 1
    later.check()


def test_several_errors_are_told_once_each(tmp_path):
    failures, watcher = Failures(), Noting()
    errors = {1: DivergenceError("too fast"), 2: SettingsError("no such thing"), 3: DivergenceError("too fast")}
    assert len(compare(RUNS, tmp_path / "results.jsonl", watcher, perform=performing(errors), failures=failures)) == 1
    assert [note.split(": ")[-1] for note in watcher.notes] == ["too fast", "no such thing", "too fast"]
    with pytest.raises(ComparisonError, match=r"^3 of 4 runs failed, as told above$"):
        failures.check()


def test_the_error_of_a_single_run_is_raised_and_not_told_before(tmp_path):
    watcher, failures = Noting(), Failures()
    with pytest.raises(DivergenceError, match=r"^too fast$"):
        compare(
            RUNS[1:2],
            tmp_path / "results.jsonl",
            watcher,
            perform=performing({1: DivergenceError("too fast")}),
            failures=failures,
        )
    assert watcher.notes == []


@pytest.mark.parametrize("error", [StorageError("the disk is full"), KeyError("a mistake"), KeyboardInterrupt()])
def test_what_would_befall_every_run_ends_the_comparison(tmp_path, error):
    path = tmp_path / "results.jsonl"
    with pytest.raises(type(error)):
        compare(RUNS, path, perform=performing({1: error}), failures=Failures())
    assert len(list(read_records(path))) == 1


def test_without_a_place_for_failures_the_first_one_ends_it(tmp_path):
    with pytest.raises(DivergenceError):
        compare(RUNS, tmp_path / "results.jsonl", perform=performing({1: DivergenceError("too fast")}))


def test_a_command_shows_what_it_has_and_ends_with_the_error(tmp_path, capsys):
    diverging = ["--method", "dm", "--method-settings", "dm.learning_rate=1e30", "--distil-steps", "5"]
    arguments = ["distil", *diverging, "--method", "random", "--train-limit", "200", "--images-per-class", "1"]
    judge = ["--networks", "1", "--architecture", "mlp:width=8", "--out", str(tmp_path)]
    assert app([*arguments, *judge], prog_name="fedcl-distill", standalone_mode=False) == 2
    said = capsys.readouterr()
    assert "failed: distil method=dm" in said.out
    assert "try a smaller learning rate" in said.out
    assert "1 of 2 runs failed" in said.err
    assert "random †" in said.out
    assert len(list(read_records(tmp_path / "results.jsonl"))) == 1


def test_a_single_failed_run_gives_its_reason_once_and_no_path(tmp_path, capsys):
    out = tmp_path / "runs"
    assert app(["distil", "--data", "cifr10", "--out", str(out)], prog_name="fedcl-distill", standalone_mode=False) == 2
    said = capsys.readouterr()
    assert (said.out + said.err).count("did you mean 'cifar10'?") == 1
    assert "results:" not in said.out
    assert "done" not in said.out
    assert not out.exists()


def test_a_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    arguments = ["distil", "--device", "meta:nothing", "--out", str(tmp_path)]
    assert app(arguments, prog_name="fedcl-distill", standalone_mode=False) == 2
    assert "fedcl-distill: device 'meta:nothing' is not there (" in capsys.readouterr().err
