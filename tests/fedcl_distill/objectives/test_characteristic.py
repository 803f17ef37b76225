"""Truth: complex exponentials summed one by one, the closed form for a Gaussian, and finite differences."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import (
    OBJECTIVES,
    CharacteristicFunction,
    DistributionMatching,
    MatchContext,
    WithCrossEntropy,
)
from fedcl_distill.objectives import distribution as module
from fedcl_distill.objectives.distribution import CharacteristicMeans, characteristic_means
from fedcl_distill.registry import describe

CPU = torch.device("cpu")
OBJECTIVE = CharacteristicFunction(frequencies=50, real_batch_per_class=6)


def side(inputs: torch.Tensor, labels: torch.Tensor) -> SyntheticBatch:
    return SyntheticBatch(inputs, classes=labels, labels=labels)


def mlp(classes: int = 3, seed: int = 0) -> Network:
    return Architecture("mlp", {"width": 8}).build((1, 8, 8), classes, seed=seed).requires_grad_(False)


def view_of(network: Network, target_network: Network | None = None, classes: int = 3) -> MatchContext:
    return MatchContext(network, NoAugmentation().draw(classes, (1, 8, 8), torch.Generator()), 3, target_network)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of(cosines: torch.Tensor, sines: torch.Tensor) -> CharacteristicMeans:
    return CharacteristicMeans(cosines, sines, torch.ones(len(cosines), dtype=torch.bool))


def test_class_means_are_those_of_complex_exponentials() -> None:
    embeddings, frequencies, labels = normal(7, 3), normal(4, 3, seed=1), torch.tensor([0, 2, 2, 0, 2, 0, 0])
    means = characteristic_means(embeddings, labels, frequencies, 4)
    assert means.present.tolist() == [True, False, True, False]
    for label in (0, 2):
        members = embeddings[labels == label].tolist()
        for position, frequency in enumerate(frequencies.tolist()):
            products = [sum(t * x for t, x in zip(frequency, member, strict=True)) for member in members]
            expected = sum(cmath.exp(1j * product) for product in products) / len(members)
            assert means.cosines[label, position].item() == pytest.approx(expected.real)
            assert means.sines[label, position].item() == pytest.approx(expected.imag)


def test_a_gaussian_sample_has_the_closed_form() -> None:
    sigma, mean, count = 0.7, 0.4, 40_000
    sample = mean + sigma * normal(count, 1)
    frequencies = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    found = characteristic_means(sample, torch.zeros(count, dtype=torch.int64), frequencies, 1)
    modulus = torch.exp(-0.5 * (sigma * frequencies[:, 0]) ** 2)
    error = 4 / math.sqrt(count)
    torch.testing.assert_close(found.cosines[0], modulus * (mean * frequencies[:, 0]).cos(), atol=error, rtol=0)
    torch.testing.assert_close(found.sines[0], modulus * (mean * frequencies[:, 0]).sin(), atol=error, rtol=0)


def test_equal_weights_give_the_distance_of_complex_numbers() -> None:
    left, right = torch.polar(normal(2, 9).abs(), normal(2, 9, seed=1)), torch.polar(normal(2, 9), normal(2, 9, seed=3))
    found = OBJECTIVE.distances(of(left.real, left.imag), of(right.real, right.imag))
    torch.testing.assert_close(found, (left - right).abs().mean(dim=1) / math.sqrt(2))


def test_amplitude_and_phase_are_weighed_apart() -> None:
    one = of(torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    shorter, turned = of(torch.tensor([[0.5]]), torch.tensor([[0.0]])), of(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    amplitude = CharacteristicFunction(amplitude_weight=1.0, phase_weight=0.0)
    phase = CharacteristicFunction(amplitude_weight=0.0, phase_weight=1.0)
    assert amplitude.distances(one, shorter).item() == pytest.approx(0.5)
    assert amplitude.distances(one, turned).item() == pytest.approx(0, abs=1e-5)
    assert phase.distances(one, shorter).item() == pytest.approx(0, abs=1e-5)
    assert phase.distances(one, turned).item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("in_groups", [False, True])
def test_the_loss_is_the_sum_over_classes(in_groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if in_groups:
        monkeypatch.setattr(module, "micro_batch_size", lambda inputs: 1)
    data, view = blobs(per_class=9), view_of(mlp())
    real = RealSampler(data, CPU)
    inputs, labels = torch.randn(5, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2])
    target = OBJECTIVE.target(view, real)
    losses = list(OBJECTIVE.losses(view, target, side(inputs, labels)))
    assert len(losses) == (3 if in_groups else 1)

    drawn, of_drawn = real.draw(6, view.seed)
    expected = 0.0
    for label in range(3):
        sides = []
        for samples in (drawn[of_drawn == label], inputs[labels == label]):
            phases = F.normalize(view.network.embed(samples), dim=1) @ target.frequencies.T
            sides.append(torch.polar(torch.ones_like(phases), phases).mean(dim=0))
        expected += 300 * ((sides[0] - sides[1]).abs() / math.sqrt(2)).mean().item()
    assert sum(loss.item() for loss in losses) == pytest.approx(expected, rel=1e-4)


def test_only_the_same_distribution_is_at_no_distance() -> None:
    data, view = blobs(per_class=6), view_of(mlp())
    target = OBJECTIVE.target(view, RealSampler(data, CPU))
    (same,) = OBJECTIVE.losses(view, target, side(data.inputs().flip(0), data.labels.flip(0)))
    (other,) = OBJECTIVE.losses(view, target, side(data.inputs() + 0.05 * torch.randn(18, 1, 8, 8), data.labels))
    assert same.item() < 0.2
    assert other.item() > 10 * same.item()


def test_spread_counts_where_the_mean_is_right() -> None:
    points, labels = torch.tensor([[1.0], [-1.0]]), torch.zeros(2, dtype=torch.int64)
    frequencies = torch.randn(20, 1)
    real = characteristic_means(points, labels, frequencies, 1)
    synthetic = characteristic_means(torch.zeros(2, 1), labels, frequencies, 1)
    assert OBJECTIVE.distances(real, synthetic).item() > 0.1


def test_gradient_equals_finite_differences() -> None:
    network = Network([nn.Flatten(), nn.Linear(4, 5), nn.Tanh()], 5, 2).double().requires_grad_(False)
    view = MatchContext(network, NoAugmentation().draw(2, (4,), torch.Generator()), 0)
    frequencies, labels = normal(6, 5), torch.tensor([0, 1, 1])
    real = characteristic_means(F.normalize(normal(8, 5, seed=2), dim=1), torch.arange(8) % 2, frequencies, 2)
    target = module.CharacteristicTarget(frequencies, real)
    inputs = normal(3, 4, seed=4).requires_grad_()

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(OBJECTIVE.losses(view, target, side(inputs, labels)))).sum()

    assert torch.autograd.gradcheck(loss, (inputs,))


def test_gradients_stay_finite_where_both_sides_agree_or_vanish() -> None:
    zero = torch.zeros(1, 4)
    for real in (zero, torch.ones(1, 4)):
        cosines, sines = real.clone().requires_grad_(), zero.clone().requires_grad_()
        OBJECTIVE.distances(of(real, zero), of(cosines, sines)).sum().backward()
        assert cosines.grad is not None
        assert sines.grad is not None
        assert cosines.grad.isfinite().all()
        assert sines.grad.isfinite().all()


def test_absent_classes_take_no_part() -> None:
    data = blobs(per_class=5).subset(torch.arange(10))  # classes 0 and 1 only
    view = view_of(mlp())
    target = OBJECTIVE.target(view, RealSampler(data, CPU))
    inputs = torch.randn(2, 1, 8, 8, requires_grad=True)
    (loss,) = OBJECTIVE.losses(view, target, side(inputs, torch.tensor([1, 2])))
    loss.backward()
    assert inputs.grad is not None
    assert inputs.grad[0].abs().sum() > 0
    assert inputs.grad[1].abs().sum() == 0


def test_each_view_has_its_own_frequencies(untouched_global_rng: None) -> None:
    real = RealSampler(blobs(per_class=3), CPU)
    views = [MatchContext(mlp(), NoAugmentation().draw(3, (1, 8, 8), torch.Generator()), seed) for seed in (0, 0, 1)]
    first, again, other = (OBJECTIVE.target(view, real).frequencies for view in views)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_the_sum_of_class_means_under_the_goal(soft: bool) -> None:
    data, goal = blobs(per_class=3), mlp(seed=5)
    inner = DistributionMatching(real_batch_per_class=3)
    objective, view = WithCrossEntropy(inner, weight=0.5), view_of(mlp(), goal)
    inputs, classes = torch.randn(4, 1, 8, 8), torch.tensor([0, 0, 0, 2])
    labels = torch.randn(4, 3).softmax(dim=1) if soft else classes
    synthetic = SyntheticBatch(inputs, classes, labels)
    target = objective.target(view, RealSampler(data, CPU))
    found = sum(loss.item() for loss in objective.losses(view, target, synthetic))
    expected = sum(loss.item() for loss in inner.losses(view, target, synthetic))
    for label in (0, 2):
        expected += 0.5 * F.cross_entropy(goal(inputs[classes == label]), labels[classes == label]).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_teaches_soft_labels_and_keeps_what_the_inner_objective_says() -> None:
    objective = WithCrossEntropy(OBJECTIVE, weight=0.5)
    assert objective.needs_target_network
    assert objective.reads_labels
    assert describe(objective)["inner"]["frequencies"] == 50
    assert OBJECTIVES.build(describe(objective)) == objective
    view = view_of(mlp(), mlp(seed=5))
    labels = torch.full((1, 3), 1 / 3, requires_grad=True)
    synthetic = SyntheticBatch(torch.randn(1, 1, 8, 8), torch.tensor([1]), labels)
    target = objective.target(view, RealSampler(blobs(per_class=3), CPU))
    *_, last = objective.losses(view, target, synthetic)
    last.backward()
    assert labels.grad is not None
    assert labels.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "change",
    [{"frequencies": 0}, {"scale": 0.0}, {"amplitude_weight": -1.0}, {"amplitude_weight": 0.0, "phase_weight": 0.0}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        CharacteristicFunction(**change)  # type: ignore[arg-type]
    with pytest.raises(SettingsError):
        WithCrossEntropy(OBJECTIVE, weight=0.0)
