"""Truth: SGD written out by hand, and torch's own loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.errors import DivergenceError, SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.training import TrainConfig, accuracy, fit, predict


def linear(inputs: int, classes: int) -> Network:
    return Network([nn.Flatten()], inputs, classes)


@pytest.mark.parametrize("schedule", ["constant", "halfway", "cosine"])
def test_full_batch_steps_equal_momentum_sgd_by_hand(schedule: str) -> None:
    inputs, labels = torch.randn(8, 4), torch.randint(0, 3, (8,))
    network = linear(4, 3)
    weight, bias = (p.detach().clone().requires_grad_() for p in network.classifier.parameters())
    train_config = TrainConfig(
        epochs=4, learning_rate=0.1, momentum=0.9, weight_decay=0.01, batch_size=8, schedule=schedule
    )
    fit(network, inputs, labels, train_config, seed=0)
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for epoch in range(4):
        gradients = torch.autograd.grad(F.cross_entropy(inputs @ weight.T + bias, labels), (weight, bias))
        halfway, cosine = (0.1 if epoch < 2 else 0.01), 0.05 * (1 + math.cos(math.pi * epoch / 4))
        rate = {"constant": 0.1, "halfway": halfway, "cosine": cosine}[schedule]
        with torch.no_grad():
            for k, (parameter, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
                velocity[k] = 0.9 * velocity[k] + gradient + 0.01 * parameter
                parameter -= rate * velocity[k]
    torch.testing.assert_close(network.classifier.weight, weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.classifier.bias, bias, rtol=1e-5, atol=1e-6)


def test_soft_labels_that_are_hard_train_alike() -> None:
    data = blobs()
    nets = [Architecture("mlp", {"width": 8}).build((1, 8, 8), 3, seed=0) for _ in range(2)]
    train_config = TrainConfig(epochs=3, batch_size=16)
    losses = [
        fit(nets[0], data.inputs(), data.labels, train_config, seed=1),
        fit(nets[1], data.inputs(), F.one_hot(data.labels, 3).float(), train_config, seed=1),
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_learns_and_is_reproducible(untouched_global_rng: None) -> None:
    data, test = blobs(per_class=20), blobs(per_class=50, seed=7)
    weights = []
    for _ in range(2):
        network = Architecture("convnet", {"width": 8}).build((1, 8, 8), 3, seed=0)
        before = accuracy(network, test)
        train_config = TrainConfig(
            epochs=20, learning_rate=0.05, batch_size=16, augmentation=SiameseAugmentation(), schedule="cosine"
        )
        fit(network, data.inputs(), data.labels, train_config, seed=1)
        assert accuracy(network, test) > max(0.9, before)
        weights.append(network.classifier.weight)
    assert torch.equal(weights[0], weights[1])


def test_accuracy_counts_right_answers() -> None:
    data = blobs((2,), classes=2, per_class=3)
    network = linear(2, 2)
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    assert predict(network, data).tolist() == [0] * 6
    assert accuracy(network, data) == 0.5
    assert math.isnan(accuracy(network, data.subset(torch.tensor([], dtype=torch.int64))))


def test_divergence_and_emptiness_are_told() -> None:
    data = blobs()
    network = Architecture("mlp", {"width": 8}).build((1, 8, 8), 3, seed=0)
    with pytest.raises(DivergenceError, match="diverged"):
        fit(network, data.inputs(), data.labels, TrainConfig(epochs=30, learning_rate=1e12), seed=0)
    with pytest.raises(SettingsError, match="empty"):
        fit(network, data.inputs()[:0], data.labels[:0], TrainConfig(epochs=1), seed=0)
    with pytest.raises(SettingsError, match="schedule"):
        TrainConfig(epochs=1, schedule="warm")
