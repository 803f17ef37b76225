"""Truth: settings of the authors' code; the parts checked one by one elsewhere; whole runs that resume and learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.augmentation import Augmentation, InSequence, NoAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import SGD, Budget, Callback, Engine, Run
from fedcl_distill.methods.gradients import accdd, dc, dcc, dsa, idc
from fedcl_distill.network_sources import FreshRandom, PretrainedPool, TrainedOnReal, TrainedOnSynthetic
from fedcl_distill.objectives import CosineDistance, GradientMatching, HiddenWeights, SquaredDistance
from fedcl_distill.parameterizations import Pixels, Tiles
from fedcl_distill.registry import describe
from stopping import StopAt

CONVNET = "convnet:width=4,depth=2"
LEARNING = {"real_batch_per_class": 20, "views_per_network": 2, "budget": Budget(steps=6), "architecture": CONVNET}
ON_SYNTHETIC: dict[str, Any] = {**LEARNING, "passes_between": 2}
ON_REAL: dict[str, Any] = {**LEARNING, "samples_between": 20}
SMALL: list[tuple[Callable[..., Engine], dict[str, Any]]] = [
    (dc, {**ON_SYNTHETIC, "init": "random"}),
    (dsa, ON_SYNTHETIC),
    (dcc, ON_SYNTHETIC),
    (idc, ON_REAL),
    (accdd, {**ON_REAL, "pool_networks": 2, "pool_epochs": 1}),
]


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step(self, run: Run) -> None:
        self.seen.append(run.progress.loss)


def losses_of(engine: Engine, data: LabelledData, steps: int) -> list[float]:
    watch = Losses()
    engine.distil(data, 2, seed=0, budget=Budget(steps=steps), callbacks=[watch])
    return watch.seen


def _operations(augmentation: Augmentation) -> list[str]:
    return [name for part in describe(augmentation)["parts"] for name in part["operations"]]


def test_dc_dsa_and_dcc_differ_in_augmentation_start_and_what_is_averaged() -> None:
    assert dc().objective == dsa().objective == GradientMatching(CosineDistance(), "class", 256)
    assert dcc().objective == GradientMatching(CosineDistance(), "all", 256)
    assert dc().augmentation == NoAugmentation()
    assert dsa().augmentation is None  # what suits the data
    assert replace(dcc(), name="dsa", objective=dsa().objective) == dsa()
    assert [preset().settings()["init"] for preset in (dc, dsa, dcc)] == ["noise"] + 2 * ["random"]
    assert all(preset().optimiser == SGD(learning_rate=0.1, momentum=0.5) for preset in (dc, dsa, dcc))
    networks = dc().networks
    assert isinstance(networks, TrainedOnSynthetic)
    assert (networks.views_per_network, networks.passes_between, networks.learning_rate) == (None, None, 0.01)
    assert networks.augmentation == dc().augmentation


def test_idc_matches_squared_gradients_of_convolutions_of_tiles_on_real_training() -> None:
    engine = idc()
    assert engine.objective == GradientMatching(SquaredDistance(), "class", 64, HiddenWeights(), 40)
    assert engine.parameterization == Tiles(2)
    assert engine.clamp
    assert isinstance(engine.augmentation, InSequence)
    networks = engine.networks
    assert isinstance(networks, TrainedOnReal)
    assert networks.start == FreshRandom()
    assert networks.augmentation is not None
    assert [_operations(one) for one in (engine.augmentation, networks.augmentation)] == [
        ["color", "crop", "cutout"],
        ["color", "crop"],
    ]


def test_accdd_is_idc_from_a_pretrained_pool_at_twice_the_rate() -> None:
    engine, base = accdd(), idc()
    networks = engine.networks
    assert isinstance(networks, TrainedOnReal)
    assert isinstance(networks.start, PretrainedPool)
    assert (networks.start.networks, networks.start.epochs) == (5, 2)
    assert (networks.start.min_perturbation, networks.start.max_perturbation) == (0.01, 0.09)
    assert engine.optimiser == replace(base.optimiser, learning_rate=2 * base.optimiser.learning_rate)
    assert replace(engine, name="idc", networks=base.networks, optimiser=base.optimiser, budget=base.budget) == base


def test_the_rate_of_idc_follows_the_distance_unless_given() -> None:
    assert idc(distance="absolute").optimiser.learning_rate == 1e-3
    assert idc(distance="absolute", learning_rate=2.0).optimiser.learning_rate == 2.0
    assert accdd(distance="absolute").optimiser.learning_rate == 1e-3


@pytest.mark.parametrize(("preset", "settings"), SMALL)
def test_samples_learn_to_pull_weights_like_real_ones(preset: Callable[..., Engine], settings: dict[str, Any]) -> None:
    # Many steps on one state of a network and one augmentation, so that losses can be compared.
    engine = preset(**{**settings, "steps_per_network": 15, "init": "noise"})
    losses = losses_of(engine, blobs(shape=(1, 8, 8)), 15)
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize(("preset", "settings"), SMALL)
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(
    preset: Callable[..., Engine], settings: dict[str, Any], tmp_path: Path
) -> None:
    data, checkpoint = blobs(shape=(1, 8, 8)), tmp_path / "state"
    engine = preset(**{**settings, "steps_per_network": 2})

    def run(**more: Any) -> torch.Tensor:
        return engine.distil(data, 2, seed=3, **more).inputs()

    run(callbacks=[StopAt(3)], checkpoint=checkpoint)  # within a view, after one that trained
    assert checkpoint.exists()
    assert torch.equal(run(checkpoint=checkpoint), run())


@pytest.mark.parametrize(("preset", "settings"), SMALL)
@pytest.mark.parametrize("labels", ["learned:learning_rate=0.01", "hard"])
def test_odd_shapes_unequal_counts_and_absent_classes(
    preset: Callable[..., Engine], settings: dict[str, Any], labels: str
) -> None:
    full = blobs(shape=(3, 8, 12), classes=4)
    rows = [full.indices_of(0), full.indices_of(1)[:1], full.indices_of(3)]
    data = full.subset(torch.cat(rows))
    engine = preset(**settings, labels=labels)
    result = engine.distil(data, [3, 1, 0, 2], seed=0, budget=Budget(steps=3), absent_classes="skip")
    assert torch.isfinite(result.inputs()).all()
    whole = 4 if engine.parameterization == Tiles(2) else 1
    assert result.class_counts.tolist() == [3 * whole, whole, 0, 2 * whole]


@pytest.mark.parametrize(("preset", "settings"), SMALL)
def test_feature_vectors_can_be_matched_on_an_mlp(preset: Callable[..., Engine], settings: dict[str, Any]) -> None:
    given = {**settings, "architecture": "mlp:width=5", "parameterization": "pixels", "augmentation": "none"}
    result = preset(**{**given, "clamp": False}).distil(blobs(shape=(6,)), 2, seed=0, budget=Budget(steps=3))
    assert result.parameterization == Pixels()
    assert torch.isfinite(result.inputs()).all()


@pytest.mark.parametrize(("preset", "settings"), SMALL)
def test_a_single_class_can_be_distilled(preset: Callable[..., Engine], settings: dict[str, Any]) -> None:
    result = preset(**settings).distil(blobs(classes=1), 1, seed=0, budget=Budget(steps=3))
    assert torch.isfinite(result.inputs()).all()


@pytest.mark.parametrize(("preset", "settings"), SMALL)
def test_a_budget_that_is_spent_before_it_began_still_gives_samples(
    preset: Callable[..., Engine], settings: dict[str, Any]
) -> None:
    result = preset(**settings).distil(blobs(), 1, seed=0, budget=Budget(seconds=0.0))
    assert result.class_counts.tolist() == [4 if preset in (idc, accdd) else 1] * 3
