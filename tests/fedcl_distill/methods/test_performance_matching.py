"""Truth: whole runs that lower a loss measured apart, resume to the same bits and take every kind of data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, Callback, Engine, Run
from fedcl_distill.evaluation import kernel_accuracy
from fedcl_distill.labels import LearnedLabels
from fedcl_distill.methods import dd, frepo, kip, label_distillation, rfad, rtp
from fedcl_distill.objectives import FullyConnectedNTK
from fedcl_distill.synthetic import SyntheticSet, decode, encode
from stopping import StopAt

SMALL: dict[Callable[..., Engine], dict[str, Any]] = {
    frepo: {"architecture": "mlp:width=8", "real_batch_size": 16, "networks": 2, "max_network_steps": 2},
    rfad: {"architecture": "mlp:width=8", "real_batch_size": 16, "networks": 2},
    kip: {"real_batch_size": 16},
    dd: {"architecture": "mlp:width=8", "real_batch_size": 16, "inner_steps": 2, "inner_epochs": 2},
    label_distillation: {"architecture": "mlp:width=8", "real_batch_size": 16, "inner_steps": 3},
    rtp: {"architecture": "mlp:width=8", "real_batch_size": 16, "inner_steps": 3, "parameterization": "pixels"},
}
LEARN_LABELS = {frepo, rfad, dd, kip}


def small(preset: Callable[..., Engine], **more: Any) -> Engine:
    labels = {"labels": LearnedLabels(0.01)} if preset in LEARN_LABELS else {}
    return preset(**{**SMALL[preset], **labels, **more})


@pytest.mark.parametrize(
    "data",
    [
        blobs((3, 9, 13), classes=4, per_class=6),
        blobs((13,), classes=2),
        blobs((1, 8, 8), classes=100, per_class=3),
        blobs((1, 28, 28), classes=2, per_class=1),
        blobs(classes=1),
    ],
    ids=["non-square RGB", "features", "100 classes", "one sample a class", "one class"],
)
@pytest.mark.parametrize("preset", SMALL, ids=lambda preset: preset.__name__)
def test_every_kind_of_data_is_taken(preset: Callable[..., Engine], data: LabelledData) -> None:
    synthetic = small(preset).distil(data, 1, seed=0, budget=Budget(steps=2))
    assert len(synthetic) == data.num_classes
    if synthetic.labels.ndim == 2:
        assert torch.allclose(synthetic.labels.sum(dim=1), torch.ones(data.num_classes))
        assert synthetic.labels.min() >= 0


@pytest.mark.parametrize("preset", SMALL, ids=lambda preset: preset.__name__)
def test_imbalanced_and_absent_classes_are_taken(preset: Callable[..., Engine]) -> None:
    data = blobs(classes=4).subset(torch.tensor([0, 1, 2, 3, 20, 21, 60]))
    synthetic = small(preset).distil(data, [3, 1, 0, 1], seed=0, budget=Budget(steps=3), absent_classes="skip")
    assert len(synthetic) == 5


@pytest.mark.parametrize("preset", SMALL, ids=lambda preset: preset.__name__)
def test_an_interrupted_run_resumes_to_the_same_bits(
    preset: Callable[..., Engine], tmp_path: Path, untouched_global_rng: None
) -> None:
    data, path, engine, budget = blobs(), tmp_path / "run.pt", small(preset), Budget(steps=9)
    whole = engine.distil(data, 2, seed=0, budget=budget)
    engine.distil(data, 2, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(4)])
    resumed = engine.distil(data, 2, seed=0, budget=budget, checkpoint=path)
    assert torch.equal(resumed.inputs(), whole.inputs())
    assert torch.equal(resumed.labels, whole.labels)
    assert resumed.provenance["final_loss"] == whole.provenance["final_loss"]


@pytest.mark.parametrize("preset", SMALL, ids=lambda preset: preset.__name__)
def test_distilling_lowers_the_loss(preset: Callable[..., Engine]) -> None:
    losses: list[float] = []

    class Watch(Callback):
        def on_step(self, run: Run) -> None:
            losses.append(run.progress.loss)

    more = {} if preset is kip else {"architecture": "mlp:width=32"}
    rate = {"label_learning_rate": 0.05} if preset is label_distillation else {"learning_rate": 0.05}
    inner = {"inner_learning_rate": 0.2} if preset is rtp else {}
    engine = small(preset, real_batch_size=60, **more, **rate, **inner)
    engine.distil(blobs(per_class=40), 1, seed=0, budget=Budget(steps=60), callbacks=[Watch()])
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_kernel_inducing_points_beat_the_samples_they_started_from() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(80)
    centres = torch.randn(3, 12, generator=generator)
    data = LabelledData.from_tensors(centres[labels] + 1.5 * torch.randn(240, 12, generator=generator), labels)
    start, end = (kip().distil(data, 1, seed=0, budget=Budget(steps=steps)) for steps in (0, 100))
    kernel = FullyConnectedNTK()
    assert kernel_accuracy(end, data, kernel) > kernel_accuracy(start, data, kernel) + 0.1


def test_label_distillation_leaves_the_samples_alone() -> None:
    data = blobs()
    start, end = (small(label_distillation).distil(data, 2, seed=0, budget=Budget(steps=n)) for n in (0, 5))
    assert torch.equal(start.inputs(), end.inputs())
    assert not torch.equal(start.labels, end.labels)
    assert end.provenance["learned"]["inner_rate"] != start.provenance["learned"]["inner_rate"]
    again = decode(encode(end, 32))
    assert isinstance(again, SyntheticSet)
    assert torch.equal(again.inputs(), end.inputs())


def test_fixed_labels_stay_and_scales_are_learned_and_recorded() -> None:
    synthetic = rfad(**SMALL[rfad], labels="hard").distil(blobs(), 1, seed=0, budget=Budget(steps=5))
    assert synthetic.labels.tolist() == [0, 1, 2]
    assert synthetic.provenance["learned"]["log_scale"] > 0


def test_addresses_are_learned() -> None:
    data = blobs((3, 8, 8), classes=4, per_class=30)
    engine = small(rtp, parameterization="addressing:bases=2")
    start, end = (engine.distil(data, 2, seed=0, budget=Budget(steps=steps)) for steps in (0, 4))
    assert len(end) > 8
    for name, array in end.arrays.items():
        assert not torch.equal(array, start.arrays[name])
