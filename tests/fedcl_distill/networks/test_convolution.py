"""Truth: torch's own layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedcl_distill.networks.zoo import Convolution


@pytest.mark.parametrize(("channels", "padding"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("frozen", [False, True])
def test_values_and_derivatives_are_those_of_the_plain_layer(channels: int, padding: int, frozen: bool) -> None:
    ours = Convolution(channels, 4, 3, padding=padding).double()
    theirs = nn.Conv2d(channels, 4, 3, padding=padding).double()
    theirs.load_state_dict(ours.state_dict())
    inputs, found = torch.randn(3, channels, 6, 5, dtype=torch.float64), []
    for layer in (ours, theirs):
        layer.requires_grad_(not frozen)
        own = inputs.clone().requires_grad_()
        outputs = layer(own)
        wanted = [own, *(one for one in layer.parameters() if not frozen)]
        firsts = torch.autograd.grad(outputs.sin().sum(), wanted, create_graph=True)
        seconds = torch.autograd.grad(sum(first.square().sum() for first in firsts), wanted)
        with torch.no_grad():
            torch.testing.assert_close(layer(own), outputs)
        found.append([outputs, *firsts, *seconds])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_autocast_computes_in_bfloat16_and_leaves_gradients_in_float32() -> None:
    layer, inputs = Convolution(1, 4, 3, padding=1), torch.randn(3, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(inputs)
    assert outputs.dtype is torch.bfloat16
    outputs.float().square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is torch.float32
    (expected,) = torch.autograd.grad(nn.Conv2d.forward(layer, inputs).square().sum(), [layer.weight])
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
