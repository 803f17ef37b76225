"""Truth: distances by hand, and the loss of FedDM written out once more for the whole data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import SetupContext
from fedcl_distill.engine import Budget, Engine, OnProgress
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources import AroundNetwork
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.registry import describe

DATA = blobs((1, 8, 8), classes=3, per_class=7)


def _network(seed: int = 0, classes: int = 3) -> Network:
    return Architecture.parse("convnet:width=4,depth=2").build((1, 8, 8), classes, seed=seed)


def _problem() -> SetupContext:
    return SetupContext(DATA, 0, torch.device("cpu"))


def _vector(network: Network) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in network.parameters()])


@pytest.mark.parametrize("radius", [0.0, 0.5, 5.0])
def test_networks_lie_on_the_sphere_in_new_directions(radius: float, untouched_global_rng: None) -> None:
    middle = _network()
    supply = AroundNetwork(middle, radius).prepare(_problem())
    ways = [_vector(supply.draw(view, seed).network) - _vector(middle) for view, seed in enumerate((1, 2))]
    for way in ways:
        assert float(way.norm()) == pytest.approx(radius, rel=1e-4)
    if radius:
        assert abs(float(ways[0] @ ways[1])) < 0.3 * radius**2
        again = _vector(supply.draw(0, 1).network) - _vector(middle)
        assert torch.equal(again, ways[0])


def test_without_a_radius_the_loss_is_the_mismatch_of_features_and_scores() -> None:
    network = _network()
    engine = build_method("dm", logits_weight=2.0, real_batch_per_class=100, augmentation="none")
    assert isinstance(engine, Engine)
    engine = replace(engine, networks=AroundNetwork(network, 0.0), augmentation=NoAugmentation())
    losses: list[float] = []
    start = engine.distil(DATA, 2, seed=3, budget=Budget(steps=0))
    engine.distil(DATA, 2, seed=3, budget=Budget(steps=1), callbacks=[OnProgress(lambda now: losses.append(now.loss))])
    expected = 0.0
    with torch.no_grad():
        for label in range(3):
            real, synthetic = DATA.inputs(DATA.labels == label), start.inputs()[start.labels == label]
            for look, weight in ((network.embed, 1.0), (network, 2.0)):
                expected += weight * float((look(real).mean(dim=0) - look(synthetic).mean(dim=0)).square().sum())
    assert losses == pytest.approx([expected], rel=1e-4)


def test_another_network_is_another_run() -> None:
    names = [describe(AroundNetwork(_network(seed), 1.0))["network"] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf")])
def test_a_bad_radius_is_refused(radius: float) -> None:
    with pytest.raises(SettingsError, match="radius"):
        AroundNetwork(_network(), radius)


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(SettingsError, match="knows 5 classes"):
        AroundNetwork(_network(classes=5), 1.0).prepare(_problem())


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_bad_weight_is_refused(weight: float) -> None:
    with pytest.raises(SettingsError, match="logits_weight"):
        DistributionMatching(logits_weight=weight)
