"""PGD against what can be known without it: linear models in closed form, masked gradients, its own bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.evaluation import PGD
from fedcl_distill.networks import Architecture
from fedcl_distill.networks.base import Network
from fedcl_distill.training import TrainConfig, accuracy, fit


def _linear(classes=2, features=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = Network([nn.Identity()], features, classes)
    with torch.no_grad():
        network.classifier.weight.copy_(torch.randn(classes, features, generator=generator))
        network.classifier.bias.copy_(torch.randn(classes, generator=generator))
    return network


def _wide(**traits):
    return blobs((6,), classes=2, per_class=30, value_range=(-100.0, 100.0), **traits)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.3])
def test_of_two_linear_classes_the_margin_shrinks_by_epsilon_times_the_norm(epsilon):
    """The best L∞ change of a linear margin w·x is −ε sign(w), which takes ε ‖w‖₁ from it."""
    network, data = _linear(), _wide()
    found = PGD(epsilon, steps=10).attack(network, data, seed=0)
    std = torch.tensor(data.normalisation.std)
    normal = (network.classifier.weight[0] - network.classifier.weight[1]).detach() / std
    sign = torch.where(data.labels == 0, 1.0, -1.0)

    def margins(unit):
        scores = network(data.normalisation.apply(unit)).detach()
        return (scores[:, 0] - scores[:, 1]) * sign

    worst = margins(data.unit()) - epsilon * normal.abs().sum()
    np.testing.assert_allclose(margins(found.unit), worst, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.survived, worst > 0)


def test_changes_stay_within_epsilon_and_the_range():
    data = blobs((1, 8, 8), classes=3)
    network = Architecture.parse("convnet:width=8").build((1, 8, 8), 3, seed=0)
    found = PGD(0.2, steps=5).attack(network, data, seed=0)
    assert float((found.unit - data.unit()).abs().max()) <= 0.2 + 1e-6
    assert 0 <= float(found.unit.min()) <= float(found.unit.max()) <= 1
    assert float((found.unit - data.unit()).abs().mean()) > 0.05


@pytest.fixture(scope="module")
def trained(digits):
    network = Architecture.parse("convnet:width=8").build((1, 8, 8), 10, seed=0)
    fit(network, digits.train.inputs(), digits.train.labels, TrainConfig(10, learning_rate=0.02, batch_size=32), seed=0)
    return network


def test_the_loss_rises_and_accuracy_falls_to_nothing(digits, trained):
    """Else gradients are masked."""
    clean, accuracies = accuracy(trained, digits.test), []
    assert clean > 0.9
    for epsilon in (0.0, 0.02, 0.1, 0.5):
        found = PGD(epsilon, steps=10).attack(trained, digits.test, seed=0)
        accuracies.append(found.accuracy)
        assert list(found.losses) == sorted(found.losses) or epsilon == 0
    assert accuracies[0] == pytest.approx(clean)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == 0


def test_gradients_beat_random_signs_of_the_same_size(digits, trained):
    found = PGD(0.1, steps=10).attack(trained, digits.test, seed=0)
    noise = torch.randint(0, 2, digits.test.unit().shape, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    unit = (digits.test.unit() + noise).clamp(0, 1)
    with torch.no_grad():
        random = (trained(digits.test.normalisation.apply(unit)).argmax(dim=1) == digits.test.labels).double().mean()
    assert found.accuracy < float(random) - 0.1


def test_more_starts_never_help_the_network(digits, trained):
    once = PGD(0.05, steps=3).attack(trained, digits.test, seed=0)
    thrice = PGD(0.05, steps=3, restarts=3).attack(trained, digits.test, seed=0)
    assert not (thrice.survived & ~once.survived).any()
    with torch.no_grad():
        scores = trained(digits.test.normalisation.apply(thrice.unit))
    assert torch.equal(scores.argmax(dim=1) == digits.test.labels, thrice.survived)


def test_the_network_stays_as_it_is(digits, trained, untouched_global_rng):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    first = PGD(0.05, steps=2).attack(trained, digits.test, seed=4)
    assert torch.equal(first.unit, PGD(0.05, steps=2).attack(trained, digits.test, seed=4).unit)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())


def test_losses_begin_at_the_random_start():
    network, data = _linear(), _wide()
    found = PGD(0.0, steps=2).attack(network, data, seed=0)
    expected = F.cross_entropy(network(data.inputs()), data.labels).item()
    assert found.losses == pytest.approx((expected,) * 3, rel=1e-5)


def test_bad_settings_and_no_samples_are_refused():
    for wrong in ({"epsilon": -1.0}, {"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"epsilon": float("nan")}):
        with pytest.raises(SettingsError, match=f"PGD: {next(iter(wrong))} "):
            PGD(**wrong)
    data = _wide()
    with pytest.raises(DataError, match="no samples"):
        PGD().attack(_linear(), data.subset(torch.zeros(0, dtype=torch.int64)), seed=0)
