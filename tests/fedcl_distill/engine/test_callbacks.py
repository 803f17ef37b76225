"""Truth: what a stand-in run did, and what is on the disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders import blobs
from fedcl_distill.engine import Budget, Callback, Checkpoints, OnProgress, Progress, ProgressBar
from fedcl_distill.engine.loop import Run
from fedcl_distill.errors import DependencyError, DivergenceError
from fedcl_distill.methods import dm


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
