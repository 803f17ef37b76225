"""Truth: settings of the authors' code; the parts checked one by one elsewhere; whole runs that resume and learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import SGD, Budget, Callback, Engine, FromReal, Run
from fedcl_distill.labels import LearnedLabels
from fedcl_distill.methods.trajectories import mtt, mtt_pruned, tesla
from fedcl_distill.network_sources import ExpertTrajectories
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import PrunedCoordinates, Tesla, TrajectoryMatching, Unrolled
from fedcl_distill.selection import Random
from stopping import StopAt

SMALL: dict[str, Any] = {
    "architecture": "mlp:width=8",
    "expert_runs": 2,
    "expert_latest_start": 2,
    "expert_segment": 2,
    "expert_samples_per_snapshot": None,
    "expert_learning_rate": 0.1,
    "expert_batch_size": 8,
    "student_steps": 3,
    "student_learning_rate": 0.1,
    "learning_rate": 10.0,
}
PRESETS = [mtt, mtt_pruned, tesla]


def losses_of(engine: Engine, data: LabelledData, steps: int) -> list[float]:
    class Losses(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_step(self, run: Run) -> None:
            self.seen.append(run.progress.loss)

    watch = Losses()
    engine.distil(data, 2, seed=0, budget=Budget(steps=steps), callbacks=[watch])
    return watch.seen


def test_optimisers_are_those_of_the_authors_code() -> None:
    engine = mtt()
    assert engine.optimiser == SGD(learning_rate=1000.0, momentum=0.5)
    assert engine.objective == TrajectoryMatching(steps=10, learning_rate=0.01, learning_rate_rate=1e-5)
    assert isinstance(engine.networks, ExpertTrajectories)
    assert (engine.networks.runs, engine.networks.learning_rate, engine.networks.momentum) == (100, 0.01, 0.0)
    assert engine.init == FromReal(Random())


def test_presets_differ_in_one_part_each() -> None:
    assert mtt_pruned(pruning_threshold=0.3).objective == TrajectoryMatching(
        steps=10, coordinates=PrunedCoordinates(0.3)
    )
    assert tesla().objective == TrajectoryMatching(steps=10, gradient=Tesla())
    assert [preset().name for preset in PRESETS] == ["mtt", "mtt-pruned", "tesla"]
    given = {**SMALL, "clamp": True, "init": "noise", "budget": Budget(steps=3), "expert_cache": "somewhere"}
    base = mtt(**given)
    for preset in PRESETS:
        other = preset(**given)
        assert replace(other, name="mtt", objective=base.objective) == base
        assert other.networks.cache == "somewhere"  # type: ignore[attr-defined]


@pytest.mark.parametrize("preset", PRESETS)
def test_samples_learn_to_lead_where_experts_went(preset: Callable[..., Engine]) -> None:
    losses = losses_of(preset(**SMALL), blobs(shape=(6,)), 40)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(preset: Callable[..., Engine], tmp_path: Path) -> None:
    data, checkpoint = blobs(shape=(1, 8, 8)), tmp_path / "state"
    engine = preset(**{**SMALL, "architecture": "convnet:width=4", "student_batch_size": 4})

    def run(**more: Any) -> torch.Tensor:
        return engine.distil(data, 2, seed=3, budget=Budget(steps=6), **more).inputs()

    run(callbacks=[StopAt(3)], checkpoint=checkpoint)
    assert checkpoint.exists()
    assert torch.equal(run(checkpoint=checkpoint), run())


def test_replaying_and_unrolling_distil_the_same_samples() -> None:
    base = mtt(**SMALL)
    other = replace(base, objective=replace(base.objective, gradient=Unrolled()))  # type: ignore[type-var]
    results = [one.distil(blobs(shape=(6,)), 2, seed=0, budget=Budget(steps=5)).inputs() for one in (base, other)]
    assert torch.allclose(*results, rtol=1e-4, atol=1e-5)


def test_labels_and_the_students_rate_are_learned_with_the_samples() -> None:
    engine = mtt(**{**SMALL, "student_learning_rate_rate": 1e-3}, labels=LearnedLabels(learning_rate=1.0))
    result = engine.distil(blobs(shape=(6,)), 1, seed=0, budget=Budget(steps=20))
    assert result.labels.shape == (3, 3)
    assert torch.allclose(result.labels.sum(1), torch.ones(3))
    assert not torch.equal(result.labels, torch.eye(3))
    assert result.provenance["learned"]["learning_rate"] != pytest.approx(0.1, abs=1e-6)


def test_a_budget_in_seconds_leaves_time_to_distil() -> None:
    engine = mtt(**{**SMALL, "expert_runs": 10_000})
    result = engine.distil(blobs(shape=(6,)), 1, seed=0, budget=Budget(seconds=1.0))
    assert result.provenance["steps"] > 0
    assert result.provenance["preparation_seconds"] < 0.9


@pytest.mark.parametrize(
    ("data", "size", "architecture"),
    [
        (blobs(shape=(3, 8, 12), classes=2, per_class=5), 2, Architecture("convnet", {"width": 3})),
        (blobs(shape=(5,), classes=100, per_class=1), 1, None),
        (blobs(shape=(5,), classes=1, per_class=4), 2, None),
        (blobs(shape=(5,), per_class=4), [1, 3, 2], None),
        (blobs(shape=(5,), per_class=4).subset(torch.tensor([0, 1, 2, 3, 8])), 3, None),  # no class 1, one of class 2
    ],
)
@pytest.mark.parametrize("preset", [mtt_pruned, tesla])
def test_any_data_can_be_distilled(
    data: LabelledData, size: int | list[int], architecture: Architecture | None, preset: Callable[..., Engine]
) -> None:
    engine = preset(**{**SMALL, "architecture": architecture})
    result = engine.distil(data, size, seed=0, budget=Budget(steps=2), absent_classes="skip")
    assert torch.isfinite(result.inputs()).all()
    assert len(result.inputs()) == sum(result.provenance["synthetic_counts"])
