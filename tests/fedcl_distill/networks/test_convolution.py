"""Truth: torch's own layer, and numerical derivatives of first and second order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedcl_distill.networks.convolution import Convolution


def pair(channels: int, padding: int, dtype: torch.dtype = torch.float64) -> tuple[Convolution, nn.Conv2d]:
    ours = Convolution(channels, 4, 3, padding=padding).to(dtype)
    theirs = nn.Conv2d(channels, 4, 3, padding=padding).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("channels", "padding"), [(1, 3), (3, 1), (2, 0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("frozen", [False, True])
def test_values_and_gradients_are_those_of_the_plain_layer(
    channels: int, padding: int, layout: torch.memory_format, frozen: bool
) -> None:
    layers = pair(channels, padding)
    inputs = torch.randn(3, channels, 6, 5, dtype=torch.float64).contiguous(memory_format=layout)
    found = []
    for layer in layers:
        layer.requires_grad_(not frozen)
        own = inputs.clone().requires_grad_()
        outputs = layer(own)
        outputs.square().sum().backward()
        found.append([outputs, own.grad, *(one.grad for one in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("channels", "padding"), [(1, 3), (2, 1)])
@pytest.mark.parametrize("fixed", [(), (0,), (1, 2)], ids=["all", "inputs fixed", "weights fixed"])
def test_second_derivatives_are_right(channels: int, padding: int, fixed: tuple[int, ...]) -> None:
    layer, _ = pair(channels, padding)
    assert layer.bias is not None
    tensors = [torch.randn(2, channels, 4, 5, dtype=torch.float64), layer.weight.detach(), layer.bias.detach()]
    for position, tensor in enumerate(tensors):
        tensor.requires_grad_(position not in fixed)

    def call(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (inputs,))
        return output.sin()  # so that the gradient hangs on the outputs

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocast_computes_in_bfloat16_and_leaves_weights_in_float32(channels: int) -> None:
    layers = pair(channels, 1, torch.float32)
    inputs = torch.randn(3, channels, 8, 8)
    found = []
    for layer in layers:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = layer(inputs)
        assert outputs.dtype is torch.bfloat16
        outputs.float().square().sum().backward()
        assert layer.bias is not None
        assert layer.weight.grad is not None
        assert layer.weight.grad.dtype is torch.float32
        found.append([outputs, layer.weight.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-1)
