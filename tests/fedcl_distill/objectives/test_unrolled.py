"""Truth: autograd through every step kept at once, torch's own SGD, and finite differences."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation, SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import MatchContext
from fedcl_distill.objectives.unrolled import (
    FixedBatches,
    FixedRate,
    LastSteps,
    LearnedRate,
    LearnedRates,
    NoTruncation,
    RandomBatches,
    RandomTruncation,
    RealBatch,
    UnrolledTraining,
    inverse_softplus,
)

CLASSES = torch.tensor([0, 0, 1, 1, 2, 2])


def smooth_network() -> Network:
    torch.manual_seed(0)
    return Network([nn.Flatten(), nn.Linear(4, 5), nn.Tanh()], 5, 3).double().requires_grad_(False)


def view_of(network: Network, seed: int = 0) -> MatchContext:
    return MatchContext(network, NoAugmentation().draw(3, (4,), torch.Generator()), seed)


def real_batch() -> RealBatch:
    generator = torch.Generator().manual_seed(1)
    return RealBatch(torch.randn(9, 4, dtype=torch.float64, generator=generator), torch.arange(3).repeat(3))


def leaves() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(6, 4, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.softmax(torch.randn(6, 3, dtype=torch.float64, generator=generator), dim=1).requires_grad_()
    return inputs, labels


def learned_of(objective: UnrolledTraining) -> dict[str, torch.Tensor]:
    return {name: one.start.double().requires_grad_() for name, one in objective.learned().items()}


def value_of(
    objective: UnrolledTraining, inputs: torch.Tensor, labels: torch.Tensor, **learned: torch.Tensor
) -> torch.Tensor:
    (loss,) = objective.losses(
        view_of(smooth_network()), real_batch(), SyntheticBatch(inputs, CLASSES, labels, learned)
    )
    return loss


def naive(
    objective: UnrolledTraining,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    learned: dict[str, torch.Tensor],
    cut: int = 0,
) -> torch.Tensor:
    """The same training with the graph of all steps kept; weights and velocity are cut off it at step ``cut``."""
    network, target, steps = smooth_network(), real_batch(), objective.steps * objective.epochs
    weights = {name: one.detach().clone().requires_grad_() for name, one in network.named_parameters()}
    velocity = {name: torch.zeros_like(one) for name, one in weights.items()}
    rates = objective.rates.values(learned, inputs, steps)
    for step in range(steps):
        if step == cut:
            weights = {name: one.detach().requires_grad_() for name, one in weights.items()}
            velocity = {name: one.detach() for name, one in velocity.items()}
        rows = objective.batches.rows(CLASSES, step, seed=0)
        loss = F.cross_entropy(functional_call(network, weights, (inputs[rows],)), labels[rows])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        velocity = {n: objective.momentum * v + g for (n, v), g in zip(velocity.items(), gradients, strict=True)}
        weights = {name: one - rates[step] * velocity[name] for name, one in weights.items()}
    return F.cross_entropy(functional_call(network, weights, (target.inputs,)), target.classes)


ALL = UnrolledTraining(steps=3, epochs=2, momentum=0.9, rates=LearnedRates(0.5))


@pytest.mark.parametrize(
    "objective",
    [
        ALL,
        dataclasses.replace(ALL, momentum=0.0),
        dataclasses.replace(ALL, batches=RandomBatches(4)),
        dataclasses.replace(ALL, batches=FixedBatches(2)),
        dataclasses.replace(ALL, rates=LearnedRate(0.5)),
        dataclasses.replace(ALL, rates=FixedRate(0.5)),
    ],
    ids=["momentum", "plain", "random batches", "fixed batches", "one rate", "fixed rate"],
)
def test_the_gradient_is_that_of_the_whole_graph(objective: UnrolledTraining) -> None:
    (inputs, labels), learned = leaves(), learned_of(objective)
    wanted = [inputs, labels, *learned.values()]
    loss, expected = value_of(objective, inputs, labels, **learned), naive(objective, inputs, labels, learned)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
        assert other.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    inputs, labels = leaves()
    rates = torch.full((6,), 0.3, dtype=torch.float64, requires_grad=True)

    def value(inputs: torch.Tensor, labels: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        return value_of(ALL, inputs, labels, inner_rates=rates)

    assert torch.autograd.gradcheck(value, (inputs, labels, rates))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_window_is_the_gradient_with_earlier_steps_held_constant(momentum: float) -> None:
    objective = dataclasses.replace(ALL, momentum=momentum, truncation=LastSteps(2))
    (inputs, labels), learned = leaves(), learned_of(objective)
    wanted = [inputs, labels, *learned.values()]
    loss, expected = value_of(objective, inputs, labels, **learned), naive(objective, inputs, labels, learned, cut=4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_a_window_of_all_steps_is_no_truncation() -> None:
    inputs, labels = leaves()
    for window in (6, 100):
        whole, cut = (
            value_of(dataclasses.replace(ALL, rates=FixedRate(0.4), truncation=one), inputs, labels)
            for one in (NoTruncation(), LastSteps(window))
        )
        for one, other in zip(
            torch.autograd.grad(whole, [inputs, labels]), torch.autograd.grad(cut, [inputs, labels]), strict=True
        ):
            assert torch.equal(one, other)


def test_random_windows_lie_within_the_training_and_end_everywhere() -> None:
    windows = [RandomTruncation(4).choose(10, seed) for seed in range(200)]
    assert all(len(window) == 4 and window.start >= 0 for window in windows)
    assert {window.stop for window in windows} == set(range(4, 11))
    assert RandomTruncation(4).choose(10, 7) == RandomTruncation(4).choose(10, 7)
    assert RandomTruncation(20).choose(10, 0) == range(10)


def test_the_inner_training_is_that_of_torch(untouched_global_rng: None) -> None:
    objective = UnrolledTraining(steps=7, epochs=1, momentum=0.9, rates=FixedRate(0.1))
    data = blobs(per_class=9)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    view, classes = MatchContext(network, NoAugmentation().draw(3, (1, 8, 8), torch.Generator()), 5), torch.arange(3)
    target = objective.target(view, RealSampler(data, torch.device("cpu")))
    inputs = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = copy.deepcopy(network.state_dict())
    (loss,) = objective.losses(view, target, SyntheticBatch(inputs, classes, classes))
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())

    trained = copy.deepcopy(network).requires_grad_(True)
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    for _ in range(7):
        optimiser.zero_grad()
        F.cross_entropy(trained(inputs.detach()), classes).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert loss.item() == pytest.approx(F.cross_entropy(trained(target.inputs), target.classes).item(), rel=1e-4)


def test_augmented_steps_are_replayed_with_the_same_draws() -> None:
    objective = UnrolledTraining(
        steps=3, epochs=1, rates=FixedRate(0.05), augmentation=SiameseAugmentation(), real_batch_size=9
    )
    data, classes = blobs((3, 9, 13), per_class=9), torch.arange(3)
    smooth = Network([nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AvgPool2d(2)], 4 * 3 * 5, 3).double().requires_grad_(False)
    view = MatchContext(smooth, NoAugmentation().draw(3, (3, 9, 13), torch.Generator()), 5)
    batch = objective.target(view, RealSampler(data, torch.device("cpu")))
    target = RealBatch(batch.inputs.double(), batch.classes)
    inputs = torch.randn(3, 3, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    direction = torch.randn(inputs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(inputs: torch.Tensor) -> torch.Tensor:
        (loss,) = objective.losses(view, target, SyntheticBatch(inputs, classes, classes))
        return loss

    (gradient,) = torch.autograd.grad(value(inputs), inputs)
    difference = value(inputs + 1e-6 * direction) - value(inputs - 1e-6 * direction)
    assert (gradient * direction).sum().item() == pytest.approx(difference.item() / 2e-6, rel=1e-5)


def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    data, classes = blobs(per_class=40), torch.arange(3).repeat_interleave(8)
    objective = UnrolledTraining(steps=2, epochs=1, rates=FixedRate(0.1), momentum=0.5)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    view = MatchContext(network, NoAugmentation().draw(3, (1, 8, 8), torch.Generator()), 5)
    target = objective.target(view, RealSampler(data, torch.device("cpu")))
    results = []
    for values in (32 * 1024, 64 * 16):
        monkeypatch.setattr("fedcl_distill.networks.base._CPU_VALUES", values)
        inputs = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()
        (loss,) = objective.losses(view, target, SyntheticBatch(inputs, classes, classes))
        results.append((loss.item(), *torch.autograd.grad(loss, inputs)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-6)


def test_fixed_batches_deal_out_every_class() -> None:
    classes = torch.arange(3).repeat_interleave(4)
    rows = [FixedBatches(4).rows(classes, step, seed=step) for step in range(8)]
    assert [sorted(classes[one].tolist()) for one in rows] == [[0, 1, 2]] * 8
    assert sorted(torch.cat(rows[:4]).tolist()) == list(range(12))
    assert torch.equal(rows[1], rows[5])
    assert FixedBatches(10).rows(torch.arange(3), 7, 0).tolist() == [0, 1, 2]  # one sample a class: one batch
    uneven = torch.tensor([0, 0, 0, 2])  # class 2 has a single sample, class 1 none
    assert [FixedBatches(3).rows(uneven, step, 0).tolist() for step in range(3)] == [[0, 3], [1], [2]]


def test_random_batches_take_every_sample_once_a_pass() -> None:
    classes = torch.zeros(10, dtype=torch.int64)
    rows = [RandomBatches(4).rows(classes, step, seed=3) for step in range(6)]
    assert [len(one) for one in rows] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(rows[:3]).tolist()) == list(range(10))
    assert not torch.equal(rows[0], rows[3])
    assert RandomBatches().rows(classes, 3, 0).tolist() == list(range(10))


def test_learned_rates_start_where_they_are_told_to() -> None:
    for value in (1e-4, 0.02, 3.0):
        assert F.softplus(torch.tensor(inverse_softplus(value), dtype=torch.float64)).item() == pytest.approx(value)
        for rates in (LearnedRate(value), LearnedRates(value), FixedRate(value)):
            learned = {name: one.start for name, one in rates.learned(5).items()}
            assert rates.values(learned, torch.zeros(()), 5).tolist() == pytest.approx([value] * 5, rel=1e-4)


def test_bad_settings_are_refused() -> None:
    for bad in (
        lambda: UnrolledTraining(steps=0),
        lambda: UnrolledTraining(momentum=1.0),
        lambda: FixedRate(0.0),
        lambda: LearnedRates(math.inf),
        lambda: LastSteps(0),
        lambda: RandomTruncation(0),
        lambda: FixedBatches(0),
        lambda: RandomBatches(0),
    ):
        with pytest.raises(SettingsError):
            bad()
