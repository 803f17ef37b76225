"""Distillations far below a run are seen by whoever watches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedcl_distill import Budget, build_method
from fedcl_distill.data import LabelledData, load
from simulations.running import progress
from simulations.running.progress import Silent, Stage, watch_distillations
from simulations.running.runs import perform_named

NETWORK = "mlp:width=8"


class Heard(Silent):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.details: list[str] = []
        self.notes: list[str] = []

    @contextmanager
    def stage(self, description: str) -> Iterator[Stage]:
        self.stages.append(description)
        yield self

    def update(self, fraction: float, detail: str = "") -> None:
        self.details.append(detail)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def data() -> LabelledData:
    return load("digits").train


def _distil(data: LabelledData, steps: int) -> None:
    build_method("dm", architecture=NETWORK).distil(data, 1, seed=0, budget=Budget(steps=steps))


def test_every_step_is_told_inside_the_block_alone(data: LabelledData) -> None:
    heard = Heard()
    with watch_distillations(heard):
        _distil(data, 3)
    _distil(data, 3)
    assert heard.stages.count("distilling") == 1
    assert [one.split(" · ")[0] for one in heard.details if one.startswith("step")] == ["step 1", "step 2", "step 3"]
    assert heard.notes == []


def test_what_takes_long_is_estimated_once(data: LabelledData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_ESTIMATED_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_WORTH_TELLING", 0.0)
    heard = Heard()
    with watch_distillations(heard):
        _distil(data, 8)
    (note,) = heard.notes
    assert note.startswith("about ")
    assert "(8 steps at" in note


def test_a_stream_shows_the_steps_of_its_memory(tmp_path: Path) -> None:
    settings = {
        "strategy": "distilled",
        "train_limit": 200,
        "experiences": 2,
        "images_per_class": 1,
        "distil_steps": 2,
        "epochs": 1,
        "architecture": NETWORK,
        "method_settings": {"architecture": NETWORK},
    }
    heard = Heard()
    perform_named("continual", settings, heard, tmp_path)
    assert "distilling" in heard.stages
    assert any(one.startswith("step 2") for one in heard.details)
