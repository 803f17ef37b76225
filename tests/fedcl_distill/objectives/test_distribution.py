"""Truth: equation 6 of the DM paper, summed class by class in float64, and gradcheck."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import DistributionMatching, MatchContext, class_means
from fedcl_distill.objectives.distribution import groups_of_classes


def total(losses: Iterator[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses)).sum()


def side(inputs: torch.Tensor, labels: torch.Tensor) -> SyntheticBatch:
    return SyntheticBatch(inputs, classes=labels, labels=labels)


def view_of(network: Network, seed: int = 0) -> MatchContext:
    return MatchContext(network, NoAugmentation().draw(3, (1, 8, 8), torch.Generator()), seed)


def test_loss_equals_the_formula_class_by_class() -> None:
    data = blobs(per_class=30)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    objective, real = DistributionMatching(real_batch_per_class=7), RealSampler(data, torch.device("cpu"))
    view = view_of(network, seed=4)
    synthetic, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2])
    loss = total(objective.losses(view, objective.target(view, real), side(synthetic, labels)))

    inputs, targets = real.draw(7, seed=4)
    expected = 0.0
    for label in range(3):
        of_real = network.embed(inputs[targets == label]).double().mean(0)
        of_synthetic = network.embed(synthetic[labels == label]).double().mean(0)
        expected += float(((of_real - of_synthetic) ** 2).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_equal_sides_agree_perfectly() -> None:
    data = blobs(per_class=5)
    network = Architecture("mlp", {"width": 4}).build((1, 8, 8), 3, seed=0)
    objective = DistributionMatching(real_batch_per_class=10)
    view = view_of(network)
    target = objective.target(view, RealSampler(data, torch.device("cpu")))
    loss = total(objective.losses(view, target, side(data.inputs(), data.labels)))
    assert loss.item() < 1e-9


def test_absent_classes_take_no_part() -> None:
    data = blobs(per_class=5)
    present = data.subset(torch.arange(10))  # classes 0 and 1 only
    network = Architecture("mlp", {"width": 4}).build((1, 8, 8), 3, seed=0)
    objective, view = DistributionMatching(), view_of(network)
    target = objective.target(view, RealSampler(present, torch.device("cpu")))
    inputs, labels = torch.randn(3, 1, 8, 8, requires_grad=True), torch.tensor([0, 1, 2])
    total(objective.losses(view, target, side(inputs, labels))).backward()
    assert inputs.grad is not None
    assert inputs.grad[:2].abs().sum() > 0
    assert inputs.grad[2].abs().sum() == 0


def test_gradient_is_right() -> None:
    network = Network([nn.Flatten(), nn.Linear(4, 5), nn.Tanh()], 5, 2).double()
    view = MatchContext(network, NoAugmentation().draw(2, (4,), torch.Generator()), 0)
    target = class_means(torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    labels = torch.tensor([0, 1, 1])
    inputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        return total(DistributionMatching().losses(view, target, side(inputs, labels)))

    assert torch.autograd.gradcheck(loss, (inputs,))


def test_real_batches_have_distinct_samples_of_every_class(untouched_global_rng: None) -> None:
    data = blobs(per_class=500, shape=(4,))
    real = RealSampler(data, torch.device("cpu"))
    inputs, labels = real.draw(9, seed=1)
    assert torch.bincount(labels).tolist() == [9, 9, 9]
    assert len(inputs.unique(dim=0)) == 27
    again, _ = real.draw(9, seed=1)
    other, _ = real.draw(9, seed=2)
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)


def test_small_classes_are_drawn_whole() -> None:
    data = blobs(per_class=4)
    _, labels = RealSampler(data, torch.device("cpu")).draw(100, seed=0)
    assert torch.bincount(labels).tolist() == [4, 4, 4]


def test_every_sample_is_equally_likely() -> None:
    real = RealSampler(blobs(classes=1, per_class=200, shape=(1,)), torch.device("cpu"))
    values = real.data.inputs().flatten()
    counts = torch.zeros(200)
    for seed in range(2000):
        counts += (values[:, None] == real.draw(5, seed)[0].flatten()).sum(1)
    chi_square = ((counts - 50) ** 2 / 50).sum()
    assert chi_square < 270  # 99.9th percentile of chi-square with 199 degrees of freedom is 266


def test_addends_hold_whole_classes_and_miss_none() -> None:
    labels = torch.arange(10).repeat_interleave(20)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    groups = list(groups_of_classes(labels, 12, size=50))
    assert sorted(torch.cat(groups).tolist()) == list(range(200))
    classes = [set(labels[group].tolist()) for group in groups]
    assert [len(members) for members in classes] == [2, 2, 2, 2, 2]
    assert len(set().union(*classes)) == 10
    assert [len(group) for group in groups_of_classes(torch.zeros(7, dtype=torch.int64), 3, size=2)] == [7]
