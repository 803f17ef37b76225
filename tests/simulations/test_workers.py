"""Comparisons in worker processes: the same results as here, and every way in which a worker can fail."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace

import pytest
from typer.testing import CliRunner

from fedcl_distill.errors import FedclDistillError, SettingsError, StorageError
from simulations.cli import app
from simulations.running.compare import compare
from simulations.running.pool import PoolSettings, WorkerError, _next, run_in_processes, start_workers
from simulations.running.progress import Silent
from simulations.running.runs import Kind, Run, perform_named, read_records
from simulations.scenarios.distil import DistilSettings
from simulations.settings import FederatedSettings
from stand_ins import replace_worker
from strategies.continual import ContinualSettings
from watchers import Recording

_NETWORK = "convnet:width=4"
_DM = DistilSettings(
    train_limit=300,
    method_settings={"architecture": _NETWORK},
    images_per_class=1,
    distil_steps=3,
    networks=1,
    architecture=_NETWORK,
)
_RUNS = [
    Run("continual", ContinualSettings(strategy="reservoir", train_limit=200, epochs=1, architecture="mlp:width=16")),
    Run("distil", _DM),
    Run("federated", FederatedSettings(strategy="fedavg", rounds=2, train_limit=300, architecture=_NETWORK)),
]
_MEASURED = re.compile("seconds|_bytes$|cores|files")  # what two runs of the same settings may differ in

_ANSWERS = """
for line in sys.stdin:
    request = json.loads(line)
    seed = request["settings"]["seed"]
    time.sleep(0.2)
    key = f"{request['kind']}{seed}"
    record = {"kind": request["kind"], "key": key, "settings": {}, "metrics": {"pid": os.getpid()}}
    answer = {"failure": FAILURE} if seed == 2 and FAILURE else {"record": record}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Cell:
    """Settings that only a stand-in understands."""

    seed: int = 0

    def as_record(self) -> dict[str, int]:
        return {"seed": self.seed}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    return lambda code: replace_worker(code, tmp_path, monkeypatch)


def _never(*_):
    raise AssertionError("a run in this process")


def _results(value):
    """``value`` without what is measured anew each time."""
    if isinstance(value, dict):
        return {name: _results(one) for name, one in value.items() if not _MEASURED.search(name)}
    return [_results(one) for one in value] if isinstance(value, list) else value


def test_every_kind_gives_the_same_results_in_workers_as_here(tmp_path):
    watcher, there, here = Recording(), tmp_path / "there" / "r.jsonl", tmp_path / "here" / "r.jsonl"
    compare(_RUNS, there, watcher, workers=2, perform=_never)
    compare(_RUNS, here, Silent())
    others = {record["key"]: record for record in read_records(there)}
    for record in read_records(here):
        other = others.pop(record["key"])
        assert _results(other["metrics"]) == _results(record["metrics"])
        assert other["settings"] == record["settings"]
        assert other["environment"]["threads"] == 1
    assert not others
    assert len(watcher.notes) == 3
    assert compare(_RUNS, there, Silent(), workers=2, perform=_never) == []


def test_workers_take_one_run_after_another_and_stay_with_their_kind(stand_in, tmp_path):
    stand_in("FAILURE = None" + _ANSWERS)
    runs = [Run(kind, Cell(seed)) for seed in range(3) for kind in ("a", "b")]
    outcomes = list(run_in_processes(runs, PoolSettings(tmp_path, 2, reuse=True), Silent()))
    processes = [outcome.record["metrics"]["pid"] for outcome in outcomes]
    assert len(set(processes)) == 2
    assert {outcome.run for outcome in outcomes} == set(runs)
    assert _next(runs, {"b"}) == 1
    assert _next(runs, {"c"}) == 0
    fresh = list(run_in_processes(runs[:3], PoolSettings(tmp_path, 2), Silent()))
    assert len({outcome.record["metrics"]["pid"] for outcome in fresh}) == 3


def test_processes_hired_beforehand_do_the_runs_and_end(stand_in, tmp_path):
    stand_in("FAILURE = None" + _ANSWERS)
    workers = PoolSettings(tmp_path, 2, reuse=True)
    started = start_workers(workers)
    outcomes = list(run_in_processes([Run("a", Cell(0))], workers, Silent(), started=started))
    assert outcomes[0].record["metrics"]["pid"] in {worker.process.pid for worker in started}
    assert all(worker.process.poll() is not None for worker in started)


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        ({"error": "StorageError", "reason": "the disk is full"}, StorageError, "^the disk is full$"),
        ({"error": "KeyError", "reason": "a", "traceback": "line 7"}, RuntimeError, "KeyError in x: a"),
    ],
)
def test_a_failing_run_ends_the_comparison_with_its_own_error(stand_in, tmp_path, failure, error, said):
    stand_in(f"FAILURE = {failure | {'during': 'x'}}" + _ANSWERS)
    path, started = tmp_path / "r.jsonl", time.monotonic()
    with pytest.raises(error, match=said) as raised:
        compare([Run("distil", Cell(seed)) for seed in range(5)], path, Silent(), workers=2)
    assert isinstance(raised.value, FedclDistillError) == (error is StorageError)
    assert getattr(raised.value, "__notes__", []) == ([] if error is StorageError else ["line 7"])
    done = {record["key"] for record in read_records(path)}
    assert done & {"distil0", "distil1"}
    assert "distil2" not in done
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "^start: killed by SIGKILL"),
        ("sys.exit('no such thing')", "^start: the process ended with status 1: no such thing$"),
    ],
)
def test_a_worker_that_ends_is_told_at_once(stand_in, tmp_path, end, said):
    stand_in(f"sys.stdin.readline(); {end}")
    with pytest.raises(WorkerError, match=said):
        compare([Run(Kind.DISTIL, _DM), Run(Kind.DISTIL, replace(_DM, seed=1))], tmp_path / "r.jsonl", workers=2)


def test_an_interrupt_leaves_checkpoints_of_runs_in_workers(tmp_path):
    class Impatient(Recording):
        def update(self, fraction, detail=""):
            if len(re.findall(r"distilling [1-9]\d* %", detail)) == 2:
                raise KeyboardInterrupt

    runs = [Run(Kind.DISTIL, replace(_DM, seed=seed, distil_steps=20_000)) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        compare(runs, tmp_path / "r.jsonl", Impatient(), workers=2)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert not (tmp_path / "r.jsonl").exists()


def test_the_command_runs_several_at_a_time(tmp_path):
    given = ["--train-limit", 300, "--images-per-class", 1, "--networks", 1, "--architecture", "mlp:width=8"]
    command = ["distil", "--out", tmp_path, *given, "--method", "random", "--seed", 0, "--seed", 1, "--workers", 2]
    result = CliRunner().invoke(app, [str(one) for one in command])
    assert result.exit_code == 0, result.output
    assert {record["settings"]["seed"] for record in read_records(tmp_path / "results.jsonl")} == {0, 1}


def test_there_are_no_other_kinds(tmp_path):
    with pytest.raises(SettingsError, match="unknown kind"):
        perform_named("cross", {}, Silent(), tmp_path)
