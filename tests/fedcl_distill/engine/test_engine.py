"""Truth: bit equality between runs, an uninterrupted twin, and exact byte counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import (
    SGD,
    Budget,
    ByteBudget,
    Engine,
    FromReal,
    Noise,
    OnProgress,
    count_per_class,
)
from fedcl_distill.errors import CheckpointError, DataError, DivergenceError, SettingsError
from fedcl_distill.methods import build_method, dm
from fedcl_distill.networks import Architecture
from fedcl_distill.optimisers import Bounded, Group, build_optimiser
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.selection import Random
from fedcl_distill.synthetic import SyntheticSet, encode
from stopping import StopAt

TINY = Architecture("convnet", {"width": 8})


def method(**settings: object) -> Engine:
    return dm(architecture=TINY, real_batch_per_class=16, **settings)  # type: ignore[arg-type]


def pixels(synthetic: SyntheticSet) -> torch.Tensor:
    return synthetic.arrays["pixels"]


def test_distilling_lowers_the_loss_on_unseen_views() -> None:
    data = blobs(per_class=40)
    losses: list[float] = []
    watch = OnProgress(lambda progress: losses.append(progress.loss))
    network = Architecture("convnet", {"width": 16, "depth": 2})
    distiller = dm(architecture=network, init=Noise(), augmentation=NoAugmentation(), learning_rate=5.0)
    distiller.distil(data, 2, seed=0, budget=Budget(steps=150), callbacks=[watch])
    assert len(losses) == 150
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_same_seed_same_bytes_and_other_seed_other_bytes(untouched_global_rng: None) -> None:
    data = blobs()
    one, two, other = (method().distil(data, 2, seed=s, budget=Budget(steps=5)) for s in (1, 1, 2))
    assert torch.equal(pixels(one), pixels(two))
    assert not torch.equal(pixels(one), pixels(other))
    assert encode(one, 8, provenance=False) == encode(two, 8, provenance=False)


@pytest.mark.parametrize(("stop", "steps_per_network"), [(4, 1), (4, 3), (5, 5), (7, 5)])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, stop: int, steps_per_network: int) -> None:
    data, path = blobs(), tmp_path / "run.pt"
    distiller = method(steps_per_network=steps_per_network, decay_start=0.5)
    whole = distiller.distil(data, 2, seed=0, budget=Budget(steps=11))
    part = distiller.distil(data, 2, seed=0, budget=Budget(steps=11), checkpoint=path, callbacks=[StopAt(stop)])
    assert part.provenance["interrupted"] is True
    assert part.provenance["steps"] == stop
    assert path.exists()
    resumed = distiller.distil(data, 2, seed=0, budget=Budget(steps=11), checkpoint=path)
    assert torch.equal(pixels(resumed), pixels(whole))
    assert resumed.provenance["final_loss"] == whole.provenance["final_loss"]
    assert resumed.provenance["steps"] == 11
    assert not path.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    data, path = blobs(), tmp_path / "run.pt"
    budget = Budget(steps=6)
    method().distil(data, 2, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(3)])
    for changed in (
        lambda: method().distil(data, 2, seed=1, budget=budget, checkpoint=path),
        lambda: method().distil(data, 3, seed=0, budget=budget, checkpoint=path),
        lambda: method(learning_rate=2.0).distil(data, 2, seed=0, budget=budget, checkpoint=path),
        lambda: method().distil(blobs(seed=5), 2, seed=0, budget=budget, checkpoint=path),
    ):
        with pytest.raises(CheckpointError, match="another run"):
            changed()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        method().distil(data, 2, seed=0, budget=budget, checkpoint=path)


def test_a_budget_in_seconds_ends_the_run() -> None:
    synthetic = method().distil(blobs(), 1, seed=0, budget=Budget(seconds=0.5))
    assert 0.5 <= synthetic.provenance["seconds"] < 5
    assert synthetic.provenance["steps"] > 1
    untouched = method().distil(blobs(), 1, seed=0, budget=Budget(steps=0))
    assert untouched.provenance["steps"] == 0


def test_real_initialisation_starts_from_real_samples() -> None:
    data = blobs()
    start = method(init=FromReal(Random())).distil(data, 2, seed=0, budget=Budget(steps=0))
    images = (start.samples() * 255).round().to(torch.uint8)
    assert all(any(torch.equal(image, real) for real in data.samples) for image in images)
    noise = method(init=Noise()).distil(data, 20, seed=0, budget=Budget(steps=0)).inputs()
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)


def test_a_reused_view_is_computed_once_and_changes_the_result_only_by_its_reuse() -> None:
    calls = {"target": 0, "loss": 0}
    engine = method(steps_per_network=4)

    class Counting(type(engine.objective)):  # type: ignore[misc]
        def target(self, view, real):  # type: ignore[no-untyped-def]
            calls["target"] += 1
            return super().target(view, real)

        def losses(self, *arguments):  # type: ignore[no-untyped-def]
            calls["loss"] += 1
            return super().losses(*arguments)

    dataclasses.replace(engine, objective=Counting(16)).distil(blobs(), 1, seed=0, budget=Budget(steps=10))
    assert calls == {"target": 3, "loss": 10}


def test_clamping_keeps_the_value_range() -> None:
    data = blobs()
    free = method(learning_rate=20.0).distil(data, 2, seed=0, budget=Budget(steps=20)).samples()
    kept = method(learning_rate=20.0, clamp=True).distil(data, 2, seed=0, budget=Budget(steps=20)).samples()
    assert free.min() < 0 or free.max() > 1
    assert kept.min() >= -1e-6
    assert kept.max() <= 1 + 1e-6


def test_divergence_is_told() -> None:
    with pytest.raises(DivergenceError, match="learning rate"):
        method(learning_rate=1e30).distil(blobs(), 1, seed=0, budget=Budget(steps=50))


def test_the_optimiser_is_momentum_sgd_with_a_cosine_end() -> None:
    parameter, slower = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    groups = [Group((parameter,)), Group((slower,), learning_rate=0.5)]
    optimiser = Bounded(build_optimiser(SGD(learning_rate=2.0, momentum=0.5), groups), decay_start=0.5)
    rates = []
    for progress in (0.0, 0.5, 0.75, 1.0):
        optimiser.step(progress)
        rates.append([group["lr"] for group in optimiser.inner.param_groups])
    assert rates == [pytest.approx([full, full / 4]) for full in (2.0, 2.0, 1.0, 0.0)]


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
@pytest.mark.parametrize("name", ["dm", "random", "herding", "k-center"])
def test_every_method_takes_every_kind_of_data(name: str, data: LabelledData) -> None:
    settings = {"architecture": Architecture("mlp", {"width": 8}), "real_batch_per_class": 4} if name == "dm" else {}
    synthetic = build_method(name, **settings).distil(data, 1, seed=0, budget=Budget(steps=2))
    assert synthetic.class_counts.tolist() == [1] * data.num_classes
    assert synthetic.sample_shape == data.sample_shape
    assert synthetic.provenance["method"] == name


def test_sizes() -> None:
    data = blobs(per_class=6)
    assert count_per_class(2, data, Pixels()) == [2, 2, 2]
    assert count_per_class(100, data, Pixels()) == [6, 6, 6]
    assert count_per_class([1, 0, 9], data, Pixels()) == [1, 0, 6]
    for bad in (0, -1, [1, 1], [0, 0, 0], [1, -1, 1]):
        with pytest.raises(SettingsError):
            count_per_class(bad, data, Pixels())


def test_absent_classes_are_an_error_unless_skipped() -> None:
    part = blobs(per_class=6).subset(torch.arange(12))
    with pytest.raises(DataError, match="no samples of class 2"):
        count_per_class(2, part, Pixels())
    assert count_per_class(2, part, Pixels(), "skip") == [2, 2, 0]
    with pytest.raises(DataError, match="it has none"):
        count_per_class([1, 1, 1], part, Pixels(), "skip")
    with pytest.raises(DataError, match="no samples to distil"):
        count_per_class(2, part.subset(torch.tensor([], dtype=torch.int64)), Pixels(), "skip")


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("total_bytes", [700, 1500, 4001])
def test_a_byte_budget_is_kept_and_used(total_bytes: int, bits: int) -> None:
    data = blobs(per_class=30)
    synthetic = build_method("random").distil(data, ByteBudget(total_bytes, bits), seed=0)
    size = len(encode(synthetic, bits, provenance=False))
    one_more = 64 * bits / 8 + 2 + 8  # a sample more, its label, and slack for rounding in the container
    assert size <= total_bytes
    assert size + one_more > total_bytes or len(synthetic) == len(data)
    counts = synthetic.class_counts
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("parameterization", ["pixels", "tiles", "low-rank:rank=1", "addressing:bases=3"])
@pytest.mark.parametrize("labels", ["hard", "teacher:temperature=2,architecture=mlp:width=4"])
def test_a_byte_budget_counts_what_is_really_stored(parameterization: str, labels: str) -> None:
    distiller = method(parameterization=parameterization, labels=labels)
    synthetic = distiller.distil(blobs(per_class=30), ByteBudget(2500), seed=0, budget=Budget(steps=0))
    assert len(encode(synthetic, 8, provenance=False)) <= 2500
    assert len(encode(synthetic, 8, provenance=False, coding="fixed")) > 2000


def test_too_few_bytes_are_told() -> None:
    with pytest.raises(SettingsError, match="single one takes"):
        build_method("random").distil(blobs(), ByteBudget(10), seed=0)


def test_bad_budgets_and_names() -> None:
    for bad in ({}, {"steps": -1}, {"seconds": -1.0}):
        with pytest.raises(SettingsError):
            Budget(**bad)
    with pytest.raises(SettingsError, match="unknown method"):
        build_method("magic")
    with pytest.raises(SettingsError, match="unknown setting"):
        build_method("dm", temperature=3)
