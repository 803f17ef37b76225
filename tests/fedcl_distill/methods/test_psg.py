"""Truth: one sample at a time by autograd, the law of Poisson samples, and data that only the mechanism may see."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import RealSampler
from fedcl_distill.data import load
from fedcl_distill.engine import Budget
from fedcl_distill.errors import DataError, PrivacyError, SettingsError
from fedcl_distill.evaluation import evaluate
from fedcl_distill.methods import build_method
from fedcl_distill.methods.private import PrivateSetGeneration, psg
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import GradientMatching, MatchContext
from fedcl_distill.objectives.private_gradients import (
    PrivateGradientMatching,
    check_per_sample,
    clipped_sum,
    per_sample_gradients,
)
from fedcl_distill.privacy import NoiseSource, PrivacyBudget, epsilon_of, guarantee_of, publicly_scaled
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import decode, encode

SMALL = {"architecture": "convnet:width=4", "expected_batch": 8}
STEPS = Budget(steps=3)


def view_of(
    shape: tuple[int, ...], classes: int = 2, architecture: str = "convnet:width=4", index: int = 0
) -> MatchContext:
    network = Architecture.parse(architecture).build(shape, classes, seed=1).requires_grad_(False)
    draw = NoAugmentation().draw(classes, shape, generator_for(0))
    return MatchContext(network, draw, 0, index=index)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("convnet:width=4", (3, 9, 8)), ("lenet", (1, 28, 28)), ("mlp:width=5", (7,)), ("resnet18:width=4", (3, 16, 16))],
)
def test_per_sample_gradients_are_those_of_one_sample_at_a_time(architecture: str, shape: tuple[int, ...]) -> None:
    network = Architecture.parse(architecture).build(shape, 3, seed=0).requires_grad_(False).double()
    inputs, labels = torch.randn(3, *shape, generator=generator_for(0)).double(), torch.tensor([2, 0, 1])
    check_per_sample(network)
    found = per_sample_gradients(network, inputs, labels)
    network.requires_grad_(True)
    weights = [one for one in network.parameters() if one.ndim > 1]
    for row in range(3):
        loss = F.cross_entropy(network(inputs[row : row + 1]), labels[row : row + 1])
        for one, expected in zip(found, torch.autograd.grad(loss, weights), strict=True):
            torch.testing.assert_close(one[row], expected)


def test_networks_that_mix_samples_or_share_layers_are_refused() -> None:
    normed = Network([nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()], 2 * 6 * 6, 2)
    with pytest.raises(SettingsError, match="batch norm"):
        check_per_sample(normed)
    grouped = Network([nn.Conv2d(2, 2, 3, groups=2), nn.Flatten()], 2 * 6 * 6, 2)
    with pytest.raises(SettingsError, match="Conv2d"):
        check_per_sample(grouped)
    shared = nn.Linear(6, 6)
    with pytest.raises(SettingsError, match="once each"):
        per_sample_gradients(Network([shared, nn.ReLU(), shared], 6, 2), torch.randn(2, 6), torch.tensor([0, 1]))


@pytest.mark.parametrize("clip", [1e-3, 0.1, 1e6])
def test_clipping_bounds_what_any_sample_adds(clip: float) -> None:
    gradients = [torch.randn(5, 4, 3), torch.randn(5, 2)]
    labels = torch.tensor([0, 1, 1, 0, 1])
    whole = clipped_sum(gradients, labels, 2, clip)
    expected = [torch.zeros(2, 4, 3), torch.zeros(2, 2)]
    for row, label in enumerate(labels.tolist()):
        norm = math.sqrt(sum(float(one[row].square().sum()) for one in gradients))
        for total, one in zip(expected, gradients, strict=True):
            total[label] += one[row] * min(1.0, clip / norm)
        without = [one[torch.arange(5) != row] for one in gradients]
        rest = clipped_sum(without, labels[torch.arange(5) != row], 2, clip)
        moved = torch.cat([(a - b).flatten() for a, b in zip(whole, rest, strict=True)]).norm()
        assert moved <= clip * (1 + 1e-5) + 1e-6
    for one, other in zip(whole, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def objective(over: str = "class", noise: float = 0.0, rate: float = 1.0, seed: int = 0) -> PrivateGradientMatching:
    data = publicly_scaled(blobs(classes=2, per_class=10))
    matching = GradientMatching(over=over)  # type: ignore[arg-type]
    return PrivateGradientMatching(matching, data, rate, 0.1, noise, NoiseSource.seeded(seed))


def target_of(one: PrivateGradientMatching, index: int = 0) -> list[Tensor]:
    view = view_of((1, 8, 8), index=index)
    found = one.target(view, RealSampler(one.data, torch.device("cpu")))
    return [torch.stack([found[label][layer] for label in (0, 1)]) for layer in range(len(found[0]))]


@pytest.mark.parametrize(("over", "unit"), [("class", 0.1 * 2 / 20), ("all", 0.1 / 20)])
def test_noise_has_the_deviation_that_is_accounted_for(over: str, unit: float) -> None:
    clean, noise = target_of(objective(over)), 3.0
    values = []
    for seed in range(30):
        noisy = target_of(objective(over, noise, seed=seed))
        values += [(one - other).flatten() for one, other in zip(noisy, clean, strict=True)]
    spread = torch.cat(values)
    assert spread.std() == pytest.approx(noise * unit, rel=6 / math.sqrt(len(spread)))
    first, again = target_of(objective(over, noise, seed=1)), target_of(objective(over, noise, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other_view = target_of(objective(over, noise, seed=1), index=1)
    assert not torch.equal(first[0], other_view[0])


def test_batches_are_poisson_samples() -> None:
    one = objective(rate=0.3)
    hits = torch.zeros(20)
    sizes = []
    for index in range(2_000):
        rows = one.sample(index)
        hits[rows] += 1
        sizes.append(len(rows))
    assert (hits / 2_000 - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 2_000)
    found = torch.tensor(sizes).double()
    assert found.mean() == pytest.approx(6, abs=5 * math.sqrt(20 * 0.21 / 2_000))
    assert found.var() == pytest.approx(20 * 0.21, rel=0.2)  # of independent draws; a fixed size would have none


def test_an_empty_batch_is_noise_alone() -> None:
    one = dataclasses.replace(objective(noise=1.0), sampling_rate=1e-9)
    assert len(one.sample(0)) == 0
    assert all(torch.isfinite(layer).all() for layer in target_of(one))
    assert not any(layer.any() for layer in target_of(dataclasses.replace(one, noise_multiplier=0.0)))


@pytest.mark.parametrize("bad", [{"clip": 0.0}, {"sampling_rate": 1.5}, {"noise_multiplier": math.nan}])
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        dataclasses.replace(objective(), **bad)


def test_without_a_bound_that_bites_it_is_gradient_matching_on_all_records() -> None:
    one = dataclasses.replace(objective(), clip=1e9)
    found = target_of(one)
    view = view_of((1, 8, 8))
    exact = GradientMatching(real_batch_per_class=10).target(view, RealSampler(one.data, torch.device("cpu")))
    for layer, both in enumerate(found):
        torch.testing.assert_close(both, torch.stack([exact[0][layer], exact[1][layer]]), rtol=1e-3, atol=1e-5)


def small(**settings: object) -> PrivateSetGeneration:
    return psg(**{**SMALL, **settings})  # type: ignore[arg-type]


def test_the_guarantee_is_that_of_its_queries_and_travels() -> None:
    data = blobs(classes=2, per_class=40)
    synthetic = small(epsilon=3.0, steps_per_network=2).distil(data, 2, seed=0, budget=Budget(steps=5))
    back = guarantee_of(decode(encode(synthetic)).provenance)
    assert back is not None
    assert (back.mechanism.queries, back.mechanism.sampling_rate, back.bound) == (3, 0.1, 0.1)
    assert epsilon_of([back.mechanism], back.delta) <= back.epsilon == 3.0
    assert guarantee_of(small(epsilon=3.0, noise_seed=1).distil(data, 1, seed=0, budget=STEPS).provenance) is None
    assert guarantee_of(small(epsilon=None).distil(data, 1, seed=0, budget=STEPS).provenance) is None


def test_nothing_but_the_mechanism_depends_on_the_records() -> None:
    one, other = blobs(classes=2, per_class=40), blobs(classes=2, per_class=40, seed=7)
    other = dataclasses.replace(other, labels=(torch.arange(80) < 3).long())  # other samples, other class counts
    loud = [
        small(epsilon=None, clip=1e-30, noise_seed=1).distil(data, 2, seed=0, budget=STEPS) for data in (one, other)
    ]
    assert torch.equal(loud[0].inputs(), loud[1].inputs())  # once clipping silences the records
    same = [{key: value for key, value in each.provenance.items() if "seconds" not in key} for each in loud]
    assert same[0] == same[1]
    heard = [small(epsilon=None, noise_seed=1).distil(data, 2, seed=0, budget=STEPS) for data in (one, other)]
    assert not torch.equal(heard[0].inputs(), heard[1].inputs())


def test_seconds_are_refused_and_so_is_what_looks_at_real_samples() -> None:
    with pytest.raises(SettingsError, match="number of steps"):
        small().distil(blobs(), 1, seed=0, budget=Budget(seconds=1))
    with pytest.raises(SettingsError, match="unknown setting 'init'"):
        build_method("psg", init="random")
    with pytest.raises(SettingsError, match="generator"):
        small(parameterization="generator")
    with pytest.raises(SettingsError, match="would reveal them"):
        psg(expected_batch=8).distil(blobs((6,)), 1, seed=0, budget=STEPS)
    with pytest.raises((SettingsError, DataError)):
        small(epsilon=-1.0)


def test_a_run_that_resumes_asks_nothing_new_and_ends_the_same(tmp_path: Path) -> None:
    data, ledger = blobs(classes=2, per_class=40), PrivacyBudget(tmp_path / "ledger", 3.0, 1e-5)
    method, checkpoint = small(epsilon=3.0, ledger=ledger), tmp_path / "run.pt"

    class Stop(Exception):
        pass

    def run(stop_at: int | None) -> Tensor:
        from fedcl_distill.engine import Callback, Run

        class Stopping(Callback):
            def on_step(self, run: Run) -> None:
                if run.state.step == stop_at:
                    run.state.save(checkpoint, run.fingerprint)
                    raise Stop

        callbacks = [] if stop_at is None else [Stopping()]
        return method.distil(
            data, 1, seed=0, budget=Budget(steps=4), callbacks=callbacks, checkpoint=checkpoint
        ).inputs()

    with pytest.raises(Stop):
        run(2)
    key = (tmp_path / "run.pt.noise").read_bytes()
    resumed = run(None)
    assert len(ledger.releases()) == 1
    assert not (tmp_path / "run.pt.noise").exists()
    (tmp_path / "run.pt.noise").write_bytes(key)
    assert torch.equal(resumed, run(None))  # the same noise, from the start
    with pytest.raises(PrivacyError):
        method.distil(data, 1, seed=0, budget=Budget(steps=4))


@pytest.mark.slow
def test_it_learns_digits_through_noise() -> None:
    digits = load("digits")
    method = psg(epsilon=10.0, architecture="convnet:width=16", expected_batch=64, noise_seed=1)
    start, end = (method.distil(digits.train, 1, seed=0, budget=Budget(steps=steps)) for steps in (1, 100))
    before, after = (evaluate(one, digits.test, seed=0, networks=1).mean for one in (start, end))
    assert after > max(0.4, before + 0.15)
