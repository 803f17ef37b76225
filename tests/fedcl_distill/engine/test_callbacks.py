"""Truth: what a stand-in run did, and what is on the disk."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builders import blobs
from fedcl_distill.engine import Budget, Callback, Checkpoints, OnProgress, Progress, ProgressBar
from fedcl_distill.engine.loop import Forecast, Run
from fedcl_distill.errors import DependencyError, DivergenceError, SettingsError
from fedcl_distill.labels import TeacherLabels
from fedcl_distill.methods import build_method, dm
from fedcl_distill.networks.base import as_device
from fedcl_distill.training import TrainConfig


def test_progress_counts_and_foresees() -> None:
    progress = Progress(step=50, loss=1.0, seconds=10.0, fraction=0.25)
    assert progress.rate == 5.0
    assert progress.remaining_seconds == pytest.approx(30.0)
    assert Progress(0, float("nan"), 0.0, 0.0).remaining_seconds == float("inf")


def test_fractions_rise_to_one() -> None:
    seen: list[float] = []
    method = dm(architecture="mlp:width=8", augmentation="none")
    method.distil(blobs(), 1, seed=0, budget=Budget(steps=4), callbacks=[OnProgress(lambda p: seen.append(p.fraction))])
    assert seen == [0.25, 0.5, 0.75, 1.0]


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_start(self, run: Run) -> None:
        self.events.append("start")

    def on_step(self, run: Run) -> None:
        self.events.append("step")

    def on_end(self, run: Run) -> None:
        self.events.append("end")


def test_the_end_is_told_even_after_a_failure() -> None:
    recorder = Recorder()
    with pytest.raises(DivergenceError):
        dm(architecture="mlp:width=8", learning_rate=1e30).distil(
            blobs(), 1, seed=0, budget=Budget(steps=50), callbacks=[recorder]
        )
    assert recorder.events[0] == "start"
    assert recorder.events[-1] == "end"


def test_checkpoints_are_written_now_and_then_and_removed_when_done(tmp_path: Path) -> None:
    path, seen = tmp_path / "run.pt", []
    watch = OnProgress(lambda progress: seen.append(path.exists()))
    method = dm(architecture="mlp:width=8", augmentation="none")
    method.distil(blobs(), 1, seed=0, budget=Budget(steps=3), callbacks=[Checkpoints(path, every_seconds=0.0), watch])
    assert seen == [True, True, True]
    assert not path.exists()


def test_the_bar_draws(capsys: pytest.CaptureFixture[str]) -> None:
    method = dm(architecture="mlp:width=8", augmentation="none")
    method.distil(blobs(), 1, seed=0, budget=Budget(steps=3), callbacks=[ProgressBar("squeezing")])
    assert "squeezing" in capsys.readouterr().out


def test_the_bar_without_rich_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(DependencyError, match=r"fedcl-distill\[report\]"):
        ProgressBar()


class Preparation(Callback):
    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []
        self.aborted = False

    def on_prepare(self, done: int, total: int, what: str) -> None:
        self.told.append((done, total, what))

    def on_abort(self) -> None:
        self.aborted = True


NCFM = {"name": "ncfm", "parameterization": "pixels", "pretrained_networks": 2, "pretraining_epochs": 3}


@pytest.mark.parametrize(
    ("settings", "total", "what"),
    [
        # Two networks or teachers, so many epochs of one batch each.
        (NCFM, 6, "networks"),
        ({"name": "dm", "labels": TeacherLabels(teachers=2, train_config=TrainConfig(4))}, 8, "teachers"),
        ({"name": "mtt", "expert_runs": 2, "expert_latest_start": 1, "expert_segment": 1}, 2, "experts"),
    ],
)
def test_preparation_is_told_step_by_step(settings: dict[str, Any], total: int, what: str) -> None:
    watch, bar = Preparation(), ProgressBar()
    name = settings["name"]
    others = {setting: value for setting, value in settings.items() if setting != "name"}
    method = build_method(name, **others, architecture="mlp:width=4", augmentation="none")
    method.distil(blobs(), 1, seed=0, budget=Budget(steps=1), callbacks=[watch, bar])
    assert watch.told == [(done, total, what) for done in range(1, total + 1)]


def test_a_preparation_that_fails_is_told() -> None:
    watch = Preparation()
    with pytest.raises(SettingsError):
        dm(parameterization="tiles").distil(blobs((5,)), 4, seed=0, callbacks=[watch])
    diverging = TeacherLabels(train_config=TrainConfig(5, learning_rate=1e12))
    with pytest.raises(DivergenceError):
        dm(architecture="mlp:width=4", labels=diverging).distil(blobs(), 1, seed=0, callbacks=[watch, ProgressBar()])
    assert watch.aborted


def test_how_long_a_run_takes_is_said_once_after_its_first_steps(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 1))
    monkeypatch.setattr("fedcl_distill.engine.loop.time.monotonic", lambda: float(next(clock)))
    state = SimpleNamespace(step=0, seconds=0.0)
    for chosen, level in ((True, "INFO"), (False, "WARNING")):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="fedcl_distill"):
            forecast = Forecast("dm", chosen=chosen)
            for state.step in range(1, 8):  # a step each second
                forecast.on_step(SimpleNamespace(state=state, budget=Budget(steps=9903)))  # type: ignore[arg-type]
        assert [(one.levelname, "9903" in one.message, "2 h 45 min" in one.message) for one in caplog.records] == [
            (level, True, True)
        ]


def test_a_budget_without_a_step_is_told(caplog: pytest.LogCaptureFixture) -> None:
    dm(architecture="mlp:width=4").distil(blobs(), 1, seed=0, budget=Budget(steps=0))
    assert "allows no step" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"budget": 5}, "budget must be a Budget or None, got 5"),
        ({"size": 1.0}, "size must be"),
        ({"size": True}, "size must be"),
        ({"size": 0}, "0"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": True}, "seed"),
        ({"absent_classes": "skp"}, "absent_classes must be one of 'error', 'skip', got 'skp'"),
        ({"device": "gpu"}, "'gpu'"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"device": 3.5}, "device"),
        ({"callbacks": [print]}, "callbacks"),
        ({"callbacks": Callback()}, "callbacks"),
    ],
)
@pytest.mark.parametrize("name", ["dm", "random"])
def test_every_argument_of_a_call_is_checked_as_it_enters(name: str, wrong: dict[str, Any], why: str) -> None:
    given = {"real": blobs(), "size": 1, "budget": Budget(steps=1), **wrong}
    with pytest.raises(SettingsError, match=why):
        build_method(name).distil(given.pop("real"), given.pop("size"), **given)


def test_auto_finds_a_device() -> None:
    assert as_device("auto").type in ("cpu", "cuda", "mps")
    method = dm(architecture="mlp:width=4", augmentation="none")
    assert len(method.distil(blobs(), 1, budget=Budget(steps=1), device="auto")) == 3
