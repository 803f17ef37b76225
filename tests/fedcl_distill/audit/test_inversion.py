"""Gradients give their batch away: exactly for a linear model, visibly for a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedcl_distill.audit import GradientInversion, batch_gradients, matched, peak_signal_to_noise
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.networks import Architecture


def test_a_linear_model_gives_its_sample_away():
    """In closed form the sample is the gradient of a row of weights divided by that of its bias."""
    torch_generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=torch_generator)
    image, label = torch.rand(1, 1, 6, 6, generator=torch_generator), torch.tensor([2])
    gradients = batch_gradients(model, image, label)
    closed = (gradients[0][2] / gradients[1][2]).view(1, 1, 6, 6)
    assert peak_signal_to_noise(closed, image) > 80
    attack = GradientInversion(steps=600, learning_rate=0.05, smoothness=0.0)
    guess = attack.invert(model, gradients, label, (1, 6, 6), seed=1)
    assert peak_signal_to_noise(guess, image) > 35


def test_a_network_gives_a_digit_away(digits, untouched_global_rng):
    network = Architecture.parse("mlp:width=64").build(digits.train.sample_shape, 10, seed=0)
    inputs, labels = digits.train.inputs(slice(0, 2)), digits.train.labels[:2]
    gradients = batch_gradients(network, inputs, labels)
    attack = GradientInversion(steps=500, smoothness=0.0)
    bounds = (digits.train.inputs().min(), digits.train.inputs().max())
    guess = attack.invert(network, gradients, labels, digits.train.sample_shape, seed=0, bounds=bounds)
    again = attack.invert(network, gradients, labels, digits.train.sample_shape, seed=0, bounds=bounds)
    assert torch.equal(guess, again)
    unit = digits.train.normalisation.invert
    originals = unit(inputs)
    noise = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert matched(originals, unit(guess)).min() > 25 > matched(originals, noise).max()


def test_matching_forgives_the_order():
    originals = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    guesses = originals[[2, 0, 3, 1]] + 0.01
    assert torch.allclose(matched(originals, guesses), torch.full((4,), 40.0), atol=0.01)
    with pytest.raises(SettingsError):
        matched(originals, guesses[:3])


def test_bad_gradients_are_refused():
    model = nn.Linear(3, 2)
    good = batch_gradients(model, torch.ones(1, 3), torch.tensor([0]))
    attack = GradientInversion(steps=1)
    for bad in (good[:1], [torch.zeros_like(one) for one in good], [good[0] * float("nan"), good[1]]):
        with pytest.raises(DataError):
            attack.invert(model, bad, torch.tensor([0]), (3,), seed=0)
    with pytest.raises(SettingsError):
        GradientInversion(steps=0)
