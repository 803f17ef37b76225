"""Truth: the squared distance of embeddings, pair by pair, and DM alone where the weight is small."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders import blobs
from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import dm
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import (
    DistributionMatching,
    FullyConnectedNTK,
    KernelRidgeRegression,
    MatchContext,
    WithPairs,
)


def test_it_adds_the_mean_distance_of_pairs_class_by_class() -> None:
    data = blobs(per_class=8)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    augment = SiameseAugmentation().draw(3, (1, 8, 8), torch.Generator().manual_seed(0))
    view, inner = MatchContext(network, augment, 0), DistributionMatching(4)
    inputs, starts = torch.randn(6, 1, 8, 8), torch.randn(6, 1, 8, 8)
    classes = torch.tensor([0, 0, 0, 1, 1, 2])
    side = SyntheticBatch(inputs, classes, classes, given_starts=starts)
    target = inner.target(view, RealSampler(data, torch.device("cpu")))

    def total(objective: object) -> float:
        return sum(float(one) for one in objective.losses(view, target, side))  # type: ignore[attr-defined]

    expected = 0.0
    for label, count in ((0, 3), (1, 2), (2, 1)):
        for row in (classes == label).nonzero().flatten().tolist():
            one = network.embed(augment(inputs[row : row + 1], classes[row : row + 1]))
            other = network.embed(augment(starts[row : row + 1], classes[row : row + 1]))
            expected += float((one - other).square().sum()) / count
    assert total(WithPairs(inner, 0.5)) - total(inner) == pytest.approx(0.5 * expected, rel=1e-4)


def test_a_heavy_weight_holds_samples_where_they_started() -> None:
    data = blobs(per_class=20)
    plain = dm(
        architecture=Architecture("convnet", {"width": 8}),
        real_batch_per_class=8,
        augmentation="none",
        learning_rate=0.2,
    )
    start = plain.distil(data, 2, seed=0, budget=Budget(steps=0)).inputs()

    def moved(weight: float) -> float:
        engine = replace(plain, objective=WithPairs(DistributionMatching(8), weight))
        return float((engine.distil(data, 2, seed=0, budget=Budget(steps=20)).inputs() - start).norm())

    assert moved(1.0) < 0.8 * moved(1e-6)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="weight must be"):
        WithPairs(DistributionMatching(), 0.0)
    with pytest.raises(SettingsError, match="closed form"):
        WithPairs(KernelRidgeRegression(FullyConnectedNTK()), 0.1)
